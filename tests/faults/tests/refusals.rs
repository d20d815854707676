//! Every broken plugin is refused with a message that names plugin, file, what was required, what was found and what
//! to do; nothing of it gets into the registry; and the next plugin loads as if nothing had happened.
//!
//! The tests count the live errors of the process, so each takes the lock in [`refusal`] around its load.

use easytransfer_faults::{ManifestText, Workshop, host, live_errors};
use easytransfer_loader::{LoadError, Policy, Registry};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

static ONE_LOAD: Mutex<()> = Mutex::new(());

fn workshop(name: &str) -> Workshop {
    Workshop::new(env!("CARGO_TARGET_TMPDIR"), name)
}

fn registry() -> Registry {
    // SAFETY: the host's table is static and complete.
    unsafe { Registry::new(host()) }
}

/// Loads a manifest that must be refused, and checks the message and that the registry did not change.
fn refusal(manifest: &Path, registry: &Registry, required: &str, found: &str) -> LoadError {
    let _alone = ONE_LOAD.lock().unwrap_or_else(PoisonError::into_inner);
    let before = (names(registry), registry.plugins().len());
    let errors = live_errors();
    let error = registry.load_path(manifest).expect_err("the plugin is broken");
    let text = error.to_string();
    let id = manifest.file_stem().unwrap().to_str().unwrap();
    assert!(text.contains(&format!("plugin {id:?} (")), "no id in: {text}");
    assert!(text.contains(manifest.parent().unwrap().to_str().unwrap()), "no file in: {text}");
    let facts = error.facts();
    assert!(facts.required.contains(required), "required is not {required:?} in: {text}");
    assert!(facts.found.contains(found), "found is not {found:?} in: {text}");
    assert!(!facts.remedy.is_empty(), "no remedy in: {text}");
    for part in [&facts.problem, &facts.required, &facts.found, &facts.remedy] {
        assert!(text.contains(part.as_str()), "{part:?} is not in: {text}");
    }
    assert_eq!(before, (names(registry), registry.plugins().len()), "the registry changed");
    assert_eq!(errors, live_errors(), "an error was not given back");
    error
}

fn names(registry: &Registry) -> Vec<String> {
    registry.list().iter().map(|c| format!("{} {}", c.kind, c.name)).collect()
}

/// A registry that already has a plugin; `source` must be refused beside it.
fn refuse(source: &str, required: &str, found: &str) -> LoadError {
    refuse_with(source, &ManifestText::default(), required, found)
}

fn refuse_with(source: &str, text: &ManifestText, required: &str, found: &str) -> LoadError {
    let good = workshop("good");
    let broken = workshop(source);
    let registry = registry();
    let twin = ManifestText { id: "twin-one", losses: &["twin-one"], ..ManifestText::default() };
    registry.load_path(&good.plugin("twin_one.c", &twin)).expect("the good plugin loads");
    let manifest = broken.plugin(source, text);
    let error = refusal(&manifest, &registry, required, found);
    // The second attempt is refused for the same reason, and another plugin still loads.
    let again = refusal(&manifest, &registry, required, found);
    assert_eq!(error, again);
    let good_text = ManifestText::default();
    registry.load_path(&good.plugin("good.c", &good_text)).expect("a good plugin still loads");
    assert_eq!(names(&registry), ["loss twin-one", "loss under-test"]);
    error
}

#[test]
fn wrong_magic() {
    let error = refuse("wrong_magic.c", "0x4e4947554c505445", "0x1122334455667788");
    assert!(matches!(error, LoadError::Abi(_)));
}

#[test]
fn next_major_version() {
    let error = refuse("next_major.c", "abi 0.x", "abi 1.2");
    assert!(matches!(error, LoadError::Abi(_)));
    assert!(error.facts().remedy.contains("rebuild"));
}

#[test]
fn far_minor_version() {
    let error = refuse("far_minor.c", "at most abi 0.2", "abi 0.1002");
    assert!(matches!(error, LoadError::Abi(_)));
    assert!(error.facts().remedy.contains("update the host"));
}

#[test]
fn version_whose_slots_changed() {
    let error = refuse("older_minor.c", "abi 0.2 to 0.2", "abi 0.1");
    assert!(matches!(error, LoadError::Abi(_)));
    assert!(error.facts().remedy.contains("rebuild the plugin against this host's header"));
}

#[test]
fn small_record() {
    let error = refuse("small_record.c", "struct_size of at least 72", "struct_size 64");
    assert!(matches!(error, LoadError::Abi(_)));
}

#[test]
fn small_table() {
    let required = "struct_size of at least 40, so that et_plugin_loss.forward is in it";
    let error = refuse("small_table.c", required, "struct_size 32");
    assert!(matches!(error, LoadError::Component(_)));
}

#[test]
fn no_component_function() {
    let error = refuse("no_component_function.c", "et_plugin_record.component", "NULL");
    assert!(matches!(error, LoadError::Abi(_)));
}

#[test]
fn required_slot_is_null() {
    let error = refuse("no_forward.c", "a function in et_plugin_loss.forward", "NULL");
    assert!(matches!(error, LoadError::Component(_)));
    assert!(error.to_string().contains("the loss \"under-test\""));
}

#[test]
fn component_without_name() {
    let error = refuse("no_name.c", "et_plugin_loss.name", "NULL");
    assert!(error.to_string().contains("the loss at index 0"));
}

#[test]
fn component_name_is_not_utf8() {
    refuse("bad_name.c", "et_plugin_loss.name", "not UTF-8");
}

#[test]
fn component_without_schema() {
    refuse("no_schema.c", "et_plugin_loss.schema", "NULL");
}

#[test]
fn init_fails() {
    let error = refuse("failing_init.c", "init to succeed", "FAILED_PRECONDITION (8): the licence");
    assert!(matches!(error, LoadError::Init { code: 8, .. }));
    assert_eq!(error.code(), 8);
}

#[test]
fn exception_in_init() {
    let error = refuse("throws_in_init.cpp", "init to succeed", "PANIC (9): index 7 of 3");
    assert!(matches!(error, LoadError::Init { code: 9, .. }));
}

#[test]
fn no_entry_symbol() {
    let error = refuse("no_entry.c", "symbol et_plugin_entry", "undefined symbol: et_plugin_entry");
    assert!(matches!(error, LoadError::Entry(_)));
}

#[test]
fn entry_gives_no_record() {
    let error = refuse("null_record.c", "et_plugin_record", "NULL");
    assert!(matches!(error, LoadError::Entry(_)));
}

#[test]
fn undefined_symbol_is_found_at_load() {
    let error = refuse("undefined_symbol.c", "RTLD_NOW", "function_that_nobody_wrote");
    assert!(matches!(error, LoadError::Library(_)));
}

#[test]
fn id_differs_from_the_manifest() {
    let error = refuse("other_id.c", "id \"loss-under-test\"", "id \"somebody-else\"");
    assert!(matches!(error, LoadError::Identity(_)));
}

#[test]
fn version_differs_from_the_manifest() {
    refuse("other_version.c", "version \"1.2.3\"", "version \"9.9.9\"");
}

#[test]
fn two_components_of_a_name() {
    let error = refuse("two_of_a_name.c", "one component per kind and name", "index 1");
    assert!(matches!(error, LoadError::Clash(_)));
}

#[test]
fn endless_list_of_components() {
    refuse("endless.c", "NULL past the last component", "1024");
}

#[test]
fn same_id_from_another_place() {
    let (one, two) = (workshop("first"), workshop("second"));
    let registry = registry();
    registry.load_path(&one.plugin("good.c", &ManifestText::default())).expect("good");
    let manifest = two.plugin("good.c", &ManifestText::default());
    let found = one.folder().to_str().unwrap();
    let error = refusal(&manifest, &registry, "one plugin per id", found);
    assert!(matches!(error, LoadError::Duplicate(_)));
}

#[test]
fn manifest_promises_too_much() {
    let text = ManifestText { losses: &["under-test", "imaginary"], ..ManifestText::default() };
    let error = refuse_with("good.c", &text, "loss \"imaginary\"", "loss \"under-test\"");
    assert!(error.to_string().contains("the library lacks the loss \"imaginary\""));
}

#[test]
fn manifest_promises_too_little() {
    let text = ManifestText { losses: &[], ..ManifestText::default() };
    let error = refuse_with("good.c", &text, "nothing", "loss \"under-test\"");
    assert!(matches!(error, LoadError::Component(_)));
}

#[test]
fn unknown_interface() {
    let text = ManifestText { requires: &["et.log/1", "et.teleport/3"], ..ManifestText::default() };
    let error = refuse_with("good.c", &text, "et.teleport/3", "abi 0.2 without it");
    assert!(matches!(error, LoadError::Interface(_)));
    assert!(!error.facts().required.contains("et.log/1"));
}

#[test]
fn not_a_library() {
    let folder = workshop("text");
    std::fs::write(folder.folder().join("plugin.so"), "this is prose\n").unwrap();
    let manifest = folder.manifest(&ManifestText::default(), "plugin.so");
    let error = refusal(&manifest, &registry(), "a shared library", "begins with \"this is \"");
    assert!(matches!(error, LoadError::Library(_)));
}

#[test]
fn empty_file() {
    let folder = workshop("empty");
    std::fs::write(folder.folder().join("plugin.so"), "").unwrap();
    let manifest = folder.manifest(&ManifestText::default(), "plugin.so");
    refusal(&manifest, &registry(), "a shared library", "a file of 0 bytes");
}

#[test]
fn truncated_library() {
    let folder = workshop("truncated");
    let whole = std::fs::read(folder.compile("good.c", "whole.so")).unwrap();
    let registry = registry();
    // Cuts in the header, the program headers, the middle, and one byte before the end.
    for (index, len) in [20, 100, whole.len() / 2, whole.len() - 1].into_iter().enumerate() {
        let file = format!("cut{index}.so");
        std::fs::write(folder.folder().join(&file), &whole[..len]).unwrap();
        let manifest = folder.manifest(&ManifestText::default(), &file);
        let found = format!("the file at {len}");
        let error = refusal(&manifest, &registry, "a complete shared library", &found);
        assert!(matches!(error, LoadError::Library(_)));
    }
}

#[test]
fn library_for_another_processor() {
    let folder = workshop("processor");
    let mut bytes = std::fs::read(folder.compile("good.c", "native.so")).unwrap();
    bytes[18..20].copy_from_slice(&8u16.to_ne_bytes());
    std::fs::write(folder.folder().join("mips.so"), bytes).unwrap();
    let manifest = folder.manifest(&ManifestText::default(), "mips.so");
    refusal(&manifest, &registry(), "a library for this processor", "ELF machine 8");
}

#[test]
fn missing_library() {
    let folder = workshop("missing");
    let manifest = folder.manifest(&ManifestText::default(), "nowhere.so");
    let error = refusal(&manifest, &registry(), "a readable file", "No such file");
    assert!(matches!(error, LoadError::Path(_)));
    assert!(error.to_string().contains("nowhere.so"));
}

#[test]
fn wrong_hash() {
    let folder = workshop("hash");
    let text = ManifestText { sha256: Some("ab".repeat(32)), ..ManifestText::default() };
    let manifest = folder.plugin("good.c", &text);
    let wanted = format!("sha256 {}", "ab".repeat(32));
    let error = refusal(&manifest, &registry(), &wanted, "sha256 ");
    assert!(matches!(error, LoadError::Policy(_)));
    // The hash that was found makes the same plugin load, also where one is required.
    let found = error.facts().found.trim_start_matches("sha256 ").to_owned();
    let manifest = folder
        .manifest(&ManifestText { sha256: Some(found), ..text.clone() }, "loss-under-test.so");
    registry().with_policy(Policy::HashRequired).load_path(&manifest).expect("the hash fits");
    let manifest = folder.manifest(&text, "loss-under-test.so");
    registry().with_policy(Policy::Any).load_path(&manifest).expect("hashes are not looked at");
}

#[test]
fn required_hash_is_absent() {
    let folder = workshop("no-hash");
    let manifest = folder.plugin("good.c", &ManifestText::default());
    let strict = registry().with_policy(Policy::HashRequired);
    let error = refusal(&manifest, &strict, "under [sha256]", "no entry");
    assert!(matches!(error, LoadError::Policy(_)));
    registry().load_path(&manifest).expect("the default policy does not ask for a hash");
}
