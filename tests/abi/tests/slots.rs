//! Every slot says since when it exists and from which threads it may be called, and never says otherwise later.

use easytransfer_abi_tests::{golden, tables};
use std::collections::BTreeMap;

const TAGS: [&str; 3] = ["any-thread", "one-at-a-time", "callback-thread"];

fn tag(doc: &str) -> Option<&'static str> {
    TAGS.into_iter().find(|tag| doc.contains(&format!("[{tag}]")))
}

fn since(doc: &str) -> Option<&str> {
    let version = doc.rsplit_once("since ")?.1.split_whitespace().next()?;
    let (major, minor) = version.split_once('.')?;
    (major.parse::<u32>().is_ok() && minor.parse::<u32>().is_ok()).then_some(version)
}

#[test]
fn slots_have_thread_and_since_tags_that_do_not_change() {
    let mut text = String::new();
    let mut errors = Vec::new();
    for table in tables() {
        for field in table.fields.iter().filter(|field| field.is_slot()) {
            let name = format!("{}.{}", table.name, field.name);
            // A table may give one tag for all of its slots.
            match (since(&field.doc), tag(&field.doc).or_else(|| tag(&table.doc))) {
                (Some(since), Some(tag)) => text.push_str(&format!("{name} {since} {tag}\n")),
                (None, _) => {
                    errors.push(format!("{name}: its comment does not end with `since X.Y`"))
                }
                (_, None) => {
                    errors.push(format!("{name}: no thread tag, expected one of {TAGS:?}"))
                }
            }
        }
    }
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    let old = golden("since.txt", &text);
    let new: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    for line in old.lines() {
        let (name, tags) = line.split_once(' ').unwrap();
        assert_eq!(new.get(name), Some(&tags), "{name} changed its tags");
    }
    assert_eq!(old, text, "slots were added, run with ET_BLESS=1");
}

#[test]
fn slots_new_ones_carry_the_present_minor_version() {
    let present = (easytransfer_abi::ET_ABI_MAJOR, easytransfer_abi::ET_ABI_MINOR);
    for table in tables() {
        for field in table.fields.iter().filter(|field| field.is_slot()) {
            let (major, minor) = since(&field.doc).and_then(|text| text.split_once('.')).unwrap();
            let since = (major.parse().unwrap(), minor.parse().unwrap());
            assert!(since <= present, "{}.{}: since {since:?}", table.name, field.name);
        }
    }
}
