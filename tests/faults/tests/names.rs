//! Whose component a name means: two plugins that offer one, what a bundle was made with, and broken plugins that stand
//! before good ones.

use easytransfer_faults::{ManifestText, Workshop, host};
use easytransfer_loader::{
    Component, ComponentKind, LoadError, PluginChoice, Registry, SearchPath,
};
use std::path::Path;

const LOSS: ComponentKind = ComponentKind::Loss;

fn workshop(name: &str) -> Workshop {
    Workshop::new(env!("CARGO_TARGET_TMPDIR"), name)
}

fn registry(places: &[&Path]) -> Registry {
    // SAFETY: the host's table is static and complete.
    let registry = unsafe { Registry::new(host()) };
    let places: Vec<_> = places.iter().map(|place| place.to_path_buf()).collect();
    registry.discover(&SearchPath::only(&places));
    registry
}

fn choosing(choices: &[&str], places: &[&Path]) -> Registry {
    let choices: Vec<PluginChoice> = choices.iter().map(|c| c.parse().expect("a choice")).collect();
    // SAFETY: the host's table is static and complete.
    let registry = unsafe { Registry::new(host()) }.with_choices(choices);
    let places: Vec<_> = places.iter().map(|place| place.to_path_buf()).collect();
    registry.discover(&SearchPath::only(&places));
    registry
}

/// "loss-under-test" 1.2.3 and "somebody-else" 1.2.3, which both offer the loss "under-test".
fn rivals(folder: &Workshop) {
    folder.plugin("good.c", &ManifestText::default());
    folder.plugin("other_id.c", &ManifestText { id: "somebody-else", ..ManifestText::default() });
}

#[track_caller]
fn says(error: &LoadError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

fn owner(component: Result<Component, LoadError>) -> String {
    component.expect("found").plugin_id
}

#[test]
fn a_name_of_two_plugins_is_an_error_that_names_both() {
    let folder = workshop("rivals");
    rivals(&folder);
    let registry = registry(&[folder.folder()]);
    let names = ["loss-under-test/under-test", "somebody-else/under-test"];
    for loaded in ["neither", "one", "both"] {
        let error = registry.lookup(LOSS, "under-test").expect_err("two offer it");
        assert!(matches!(error, LoadError::Clash(_)), "{loaded}: {error}");
        says(&error, &names);
        says(&error, &["somebody-else.", "write ", "loss="]);
        // One after the other is loaded by its full name.
        let name = names[usize::from(loaded == "one")];
        let found = registry.lookup(LOSS, name).expect("said whose");
        assert_eq!(format!("{}/{}", found.plugin_id, found.name), name);
    }
    assert_eq!(registry.plugins().len(), 2);
    // The plugin that asks means its own.
    for asker in ["loss-under-test", "somebody-else"] {
        assert_eq!(owner(registry.lookup_for(LOSS, "under-test", asker)), asker);
    }
    let error = registry.lookup_for(LOSS, "under-test", "a-third").expect_err("not its own");
    assert!(matches!(error, LoadError::Clash(_)), "{error}");
}

#[test]
fn a_name_of_a_plugin_that_has_it_not_says_who_has() {
    let folder = workshop("not-its-own");
    folder.plugin("good.c", &ManifestText::default());
    let registry = registry(&[folder.folder()]);
    let error = registry.lookup(LOSS, "loss-under-tset/under-test").expect_err("a slip");
    says(&error, &["there is no plugin \"loss-under-tset\"", "write loss-under-test/under-test"]);
    let error = registry.lookup(LOSS, "loss-under-test/over-test").expect_err("not its own");
    says(&error, &["plugin \"loss-under-test\" offers no loss of this name"]);
    assert!(matches!(error, LoadError::NoSuchComponent(_)));
}

#[test]
fn a_stated_choice_decides() {
    let folder = workshop("choice");
    rivals(&folder);
    for id in ["loss-under-test", "somebody-else"] {
        let registry = choosing(&[&format!("loss={id}/under-test")], &[folder.folder()]);
        assert_eq!(owner(registry.lookup(LOSS, "under-test")), id);
    }
    let registry = choosing(&["loss=nobody/under-test"], &[folder.folder()]);
    says(&registry.lookup(LOSS, "under-test").expect_err("no such"), &["no plugin \"nobody\""]);
}

#[test]
fn what_was_made_with_a_plugin_is_not_given_anothers() {
    let (own, foreign) = (workshop("own"), workshop("foreign"));
    own.plugin("good.c", &ManifestText::default());
    foreign.plugin("other_id.c", &ManifestText { id: "somebody-else", ..ManifestText::default() });
    let made = |registry: &Registry| {
        registry.lookup_made_with(LOSS, "under-test", "loss-under-test", "1.2.3")
    };
    // Where both are there it gets its own.
    assert_eq!(owner(made(&registry(&[foreign.folder(), own.folder()]))), "loss-under-test");
    let error = made(&registry(&[foreign.folder()])).expect_err("another plugin's");
    says(&error, &["another plugin's", "plugin loss-under-test 1.2.3", "somebody-else/under-test"]);
    assert!(matches!(error, LoadError::NoSuchComponent(_)));
    let chosen = choosing(&["loss=somebody-else/under-test"], &[foreign.folder()]);
    assert_eq!(owner(made(&chosen)), "somebody-else");
    let warnings = chosen.take_warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("loss-under-test 1.2.3"), "{warnings:?}");
}

#[test]
fn versions_of_a_plugin_are_compared_with_what_was_made() {
    let folder = workshop("versions");
    folder.plugin("good.c", &ManifestText::default());
    let places = [folder.folder()];
    // It is 1.2.3.
    for (version, warned) in [("1.2.3", 0), ("1.1.0", 0), ("1.2.4", 1)] {
        let registry = registry(&places);
        registry
            .lookup_made_with(LOSS, "under-test", "loss-under-test", version)
            .expect("of the same major version");
        let warnings = registry.take_warnings();
        assert_eq!(warnings.len(), warned, "{version}: {warnings:?}");
        assert!(
            warnings.iter().all(|w| w.contains(version) && w.contains("1.2.3")),
            "{warnings:?}"
        );
    }
    let old = |registry: &Registry| {
        registry.lookup_made_with(LOSS, "under-test", "loss-under-test", "0.9.0")
    };
    let error = old(&registry(&places)).expect_err("another major version");
    assert!(matches!(error, LoadError::Identity(_)), "{error}");
    says(&error, &["loss-under-test", "0.9.0", "1.2.3", "loss=loss-under-test/under-test"]);
    let chosen = choosing(&["loss=loss-under-test/under-test"], &places);
    assert_eq!(owner(old(&chosen)), "loss-under-test");
    assert_eq!(chosen.take_warnings().len(), 1);
}

#[test]
fn a_broken_plugin_hides_no_good_one_of_its_id() {
    type Break = fn(&Workshop);
    let broken: [(&str, Break, &str); 5] = [
        ("no library", |f| drop(f.manifest(&ManifestText::default(), "nowhere.so")), "nowhere.so"),
        ("no plugin", |f| drop(f.plugin("no_entry.c", &ManifestText::default())), "not a plugin"),
        (
            "its init fails",
            |f| drop(f.plugin("failing_init.c", &ManifestText::default())),
            "init failed",
        ),
        (
            "no manifest",
            |f| {
                std::fs::write(f.folder().join("loss-under-test.toml"), "manifest_version = 1\n")
                    .unwrap()
            },
            "missing key",
        ),
        (
            "another platform",
            |f| {
                let path = f.manifest(&ManifestText::default(), "x.so");
                let text = std::fs::read_to_string(&path).unwrap();
                let here = easytransfer_loader::current_platform();
                let there = if here == "windows_amd64" { "linux_amd64" } else { "windows_amd64" };
                std::fs::write(path, text.replace(here, there)).unwrap();
            },
            "no library for this platform",
        ),
    ];
    let good = workshop("good-behind");
    good.plugin("good.c", &ManifestText::default());
    for (what, make, reason) in broken {
        let folder = workshop("broken");
        make(&folder);
        let found = registry(&[folder.folder(), good.folder()]);
        assert_eq!(owner(found.lookup(LOSS, "under-test")), "loss-under-test", "{what}");
        let warnings = found.take_warnings();
        let told = |word: &Path| warnings.iter().any(|w| w.contains(word.to_str().unwrap()));
        assert!(warnings.iter().any(|w| w.contains(reason)), "{what}: {warnings:?}");
        assert!(told(folder.folder()) && told(good.folder()), "{what}: {warnings:?}");
        assert!(found.take_warnings().is_empty(), "{what}: said twice");
        // The other way round the broken one is in nobody's way.
        let found = registry(&[good.folder(), folder.folder()]);
        assert_eq!(owner(found.lookup(LOSS, "under-test")), "loss-under-test", "{what}");
    }
    // Where none is good the error tells of all.
    let (one, two) = (workshop("broken"), workshop("broken"));
    one.manifest(&ManifestText::default(), "nowhere.so");
    two.plugin("failing_init.c", &ManifestText::default());
    let error =
        registry(&[one.folder(), two.folder()]).lookup(LOSS, "under-test").expect_err("none");
    says(&error, &["nowhere.so", "init failed", two.folder().to_str().unwrap()]);
}

#[test]
fn a_broken_plugin_of_another_id_is_told_of_or_asked_about() {
    let (broken, good) = (workshop("broken-rival"), workshop("good-rival"));
    good.plugin("good.c", &ManifestText::default());
    // Its manifest promises the same, and its library is not there: nobody knows yet, so both are named.
    let text = ManifestText { id: "somebody-else", ..ManifestText::default() };
    broken.manifest(&text, "nowhere.so");
    let error = registry(&[broken.folder(), good.folder()]).lookup(LOSS, "under-test");
    says(
        &error.expect_err("two offer it"),
        &["somebody-else/under-test", "loss-under-test/under-test"],
    );
    // A manifest that cannot be read might have offered anything.
    std::fs::write(broken.folder().join("somebody-else.toml"), "manifest_version = 1\nid = 3\n")
        .unwrap();
    let found = registry(&[broken.folder(), good.folder()]);
    assert_eq!(owner(found.lookup(LOSS, "under-test")), "loss-under-test");
    let warnings = found.take_warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("somebody-else.toml"), "{warnings:?}");
}

#[test]
fn a_name_with_a_slash_is_refused() {
    let folder = workshop("slash");
    let more = ["-DLOSS_NAME=\"a/b\"".to_owned()];
    folder.compile_with("good.c", "loss-under-test.so", &more);
    let text = ManifestText { losses: &["a/b"], ..ManifestText::default() };
    let manifest = folder.manifest(&text, "loss-under-test.so");
    let error = registry(&[]).load_path(&manifest).expect_err("a slash");
    says(&error, &["without '/'", "a/b"]);
}
