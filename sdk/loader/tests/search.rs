//! Where plugins are looked for, what is listed, and which of two with the same id is used.

use easytransfer_abi::{ET_ABI_MAJOR, ET_ABI_MINOR, et_host};
use easytransfer_loader::{
    ComponentKind, KNOWN_PLATFORMS, LoadError, ManifestSource, Registry, SearchPath,
    current_platform,
};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

static HOST: et_host = et_host {
    struct_size: size_of::<et_host>(),
    abi_major: ET_ABI_MAJOR,
    abi_minor: ET_ABI_MINOR,
    get_interface: None,
    get_experimental: None,
    error_new: None,
    error_code: None,
    error_message: None,
    error_release: None,
    live_handles: None,
    error_new_detailed: None,
    error_details: None,
};

fn registry() -> Registry {
    // SAFETY: a static table; the empty slots are answered as missing.
    unsafe { Registry::new(&HOST) }
}

/// An empty folder for one test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes a manifest whose library does not exist; listing must not mind.
fn manifest(folder: &Path, id: &str, platform: &str, loss: &str) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join(format!("{id}.toml"));
    let text = format!(
        "manifest_version = 1\nid = {id:?}\nversion = \"0.1.0\"\n[abi]\nmajor = 0\nminor = {ET_ABI_MINOR}\n\
         [[provides]]\nkind = \"loss\"\nname = {loss:?}\n[library]\n{platform} = \"absent.so\"\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn places_come_in_order() {
    let environment = std::env::join_paths(["/e1", "", "/e2"]).unwrap();
    let search = SearchPath::from_parts(
        &[PathBuf::from("/x")],
        Some(&environment),
        Some(Path::new("/opt/et/bin")),
        Some(Path::new("/srv/et/lib64")),
        Some(Path::new("/home/u/.local/share")),
    );
    let places: Vec<(ManifestSource, &Path)> = search.places().collect();
    let expected = [
        (ManifestSource::Explicit, "/x"),
        (ManifestSource::Environment, "/e1"),
        (ManifestSource::Environment, "/e2"),
        (ManifestSource::Executable, "/opt/et/bin/plugins"),
        (ManifestSource::Executable, "/opt/et/bin/../lib/easytransfer/plugins"),
        (ManifestSource::Library, "/srv/et/lib64/easytransfer/plugins"),
        (ManifestSource::Library, "/srv/et/lib64/../lib/easytransfer/plugins"),
        (ManifestSource::Library, "/srv/et/lib64/plugins"),
        (ManifestSource::User, "/home/u/.local/share/easytransfer/plugins"),
        (ManifestSource::System, "/usr/lib/easytransfer/plugins"),
    ];
    assert_eq!(places, expected.map(|(source, path)| (source, Path::new(path))));
    let lib = SearchPath::from_parts(&[], None, None, Some(Path::new("/srv/et/lib")), None);
    let places: Vec<&Path> = lib.places().map(|(_, place)| place).take(2).collect();
    let expected = ["/srv/et/lib/easytransfer/plugins", "/srv/et/lib/plugins"];
    assert_eq!(places, expected.map(Path::new));
    let none = SearchPath::from_parts(&[], Some(OsStr::new("")), None, None, None);
    assert!(none.places().all(|(_, place)| place.is_absolute()), "the current folder is searched");
}

#[test]
fn first_of_an_id_wins_and_the_rest_is_reported() {
    let root = folder("first-wins");
    let here = current_platform();
    let first = manifest(&root.join("a"), "loss-x", here, "one");
    let second = manifest(&root.join("b/loss-x"), "loss-x", here, "two");
    let other = manifest(&root.join("b"), "loss-y", here, "three");
    std::fs::write(root.join("b/Cargo.toml"), "[package]\nname = \"no-manifest\"\n").unwrap();
    let registry = registry();
    let listings = registry.discover(&SearchPath::only(&[root.join("a"), root.join("b")]));
    let paths: Vec<&PathBuf> = listings.iter().map(|listing| &listing.path).collect();
    assert_eq!(paths, [&first, &second, &other]);
    assert_eq!(listings[0].problem, None);
    let problem = listings[1].problem.as_ref().expect("a duplicate");
    assert!(matches!(problem, LoadError::Duplicate(_)));
    assert!(problem.to_string().contains(first.to_str().unwrap()), "{problem}");
    assert_eq!(registry.load(&listings[1]).expect_err("a duplicate"), *problem);
    // What only the second promises is not offered.
    let error = registry.lookup(ComponentKind::Loss, "two").expect_err("not offered").to_string();
    assert!(
        error.contains("no loss has this name") && error.contains("found: one, three;"),
        "{error}"
    );
    // The same folder twice is no duplicate.
    let twice = SearchPath::only(&[root.join("a"), root.join("a/../a")]);
    assert_eq!(registry.discover(&twice).len(), 1);
}

#[test]
fn what_cannot_be_used_is_listed_with_the_reason() {
    let root = folder("unusable");
    let elsewhere = KNOWN_PLATFORMS.into_iter().find(|&p| p != current_platform()).unwrap();
    manifest(&root, "loss-elsewhere", elsewhere, "far");
    std::fs::write(root.join("torn.toml"), "manifest_version = 1\nid = \n").unwrap();
    let registry = registry();
    let search = SearchPath::only(&[root.clone(), root.join("nowhere")]);
    let listings = registry.discover(&search);
    assert_eq!(listings.len(), 3);
    assert!(matches!(listings[0].problem, Some(LoadError::Platform(_))));
    assert!(matches!(listings[1].problem, Some(LoadError::PluginManifest(_))));
    assert!(matches!(listings[2].problem, Some(LoadError::Path(_))));
    let text = listings[0].problem.as_ref().unwrap().to_string();
    assert!(text.contains(elsewhere) && text.contains(current_platform()), "{text}");
    // The search for a component says what stood in the way.
    let text = registry.lookup(ComponentKind::Loss, "far").expect_err("not usable").to_string();
    assert!(text.contains("loss-elsewhere.toml") && text.contains("torn.toml"), "{text}");
}

#[test]
fn a_path_must_lead_to_one_plugin() {
    let root = folder("one-plugin");
    let registry = registry();
    let text = registry.load_path(&root).expect_err("empty").to_string();
    assert!(text.contains("one manifest") && text.contains("found: none"), "{text}");
    let here = current_platform();
    manifest(&root, "loss-x", here, "one");
    manifest(&root, "loss-y", here, "two");
    let text = registry.load_path(&root).expect_err("two").to_string();
    assert!(text.contains("loss-x.toml") && text.contains("loss-y.toml"), "{text}");
    manifest(&root, "one-plugin", here, "three");
    let text = registry.load_path(&root).expect_err("its library is absent").to_string();
    assert!(text.contains("plugin \"one-plugin\"") && text.contains("absent.so"), "{text}");
    std::fs::write(root.join("x.so"), "").unwrap();
    let text = registry.load_path(&root.join("x.so")).expect_err("no manifest").to_string();
    assert!(text.contains("name the manifest beside the library"), "{text}");
}

#[cfg(unix)]
#[test]
fn pipe_named_as_a_manifest_is_listed_and_waited_for_by_nobody() {
    let place = folder("pipe");
    manifest(&place, "loss-a", current_platform(), "a");
    let pipe = place.join("x.toml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let registry = registry();
    registry.discover(&SearchPath::only(&[place]));
    let listings = registry.discovered();
    let problem = |id: &str| {
        let listing = listings.iter().find(|listing| listing.id == id).unwrap();
        listing.problem.as_ref().map(ToString::to_string)
    };
    assert_eq!(problem("loss-a"), None);
    let found = problem("x").unwrap();
    assert!(found.contains("x.toml") && found.contains("pipe"), "{found}");
    let error = registry.load_path(&pipe).unwrap_err().to_string();
    assert!(error.contains("x.toml"), "{error}");
}

#[cfg(unix)]
#[test]
fn pipe_named_as_a_library_is_refused() {
    let place = folder("pipe-library");
    let path = manifest(&place, "loss-a", current_platform(), "a");
    let pipe = place.join("absent.so");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = registry().load_path(&path).unwrap_err().to_string();
    assert!(error.contains("absent.so") && error.contains("pipe"), "{error}");
}

#[test]
fn overlong_manifest_is_listed_as_one() {
    let place = folder("overlong");
    let path = manifest(&place, "loss-a", current_platform(), "a");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}{}", "#\n".repeat(1 << 20))).unwrap();
    let registry = registry();
    registry.discover(&SearchPath::only(&[place]));
    let found = registry.discovered()[0].problem.as_ref().unwrap().to_string();
    assert!(found.contains("at most 1048576 bytes"), "{found}");
}
