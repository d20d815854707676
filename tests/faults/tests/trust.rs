//! Which code runs: what is opened is what was hashed, and nobody else could have changed it.
#![cfg(target_os = "linux")]

use easytransfer_faults::{ManifestText, Workshop, host};
use easytransfer_loader::{ComponentKind, LoadError, Policy, Registry, SearchPath};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

fn workshop(name: &str) -> Workshop {
    Workshop::new(env!("CARGO_TARGET_TMPDIR"), name)
}

fn registry(policy: Policy) -> Registry {
    // SAFETY: the host's table is static and complete.
    unsafe { Registry::new(host()) }.with_policy(policy)
}

/// The hash of a library, as the policy that requires one tells it.
fn hash_of(manifest: &Path) -> String {
    let error = registry(Policy::HashRequired).load_path(manifest).expect_err("it has no hash");
    let remedy = &error.facts().remedy;
    remedy.split('"').nth(1).expect("the remedy says the hash").to_owned()
}

/// Writes the manifest of a plugin once more, with the hash of its library.
fn pin(folder: &Workshop, library: &str) -> PathBuf {
    let hash = hash_of(&folder.manifest(&ManifestText::default(), library));
    folder.manifest(&ManifestText { sha256: Some(hash), ..ManifestText::default() }, library)
}

fn is_mapped(path: &Path) -> bool {
    let maps = fs::read_to_string("/proc/self/maps").expect("the maps of the process");
    maps.contains(path.to_str().expect("UTF-8"))
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
}

#[test]
fn pinned_bytes_are_what_runs_whatever_becomes_of_the_file() {
    let folder = workshop("pinned");
    let library = folder.compile("good.c", "pinned-library.so");
    let manifest = pin(&folder, "pinned-library.so");
    for policy in [Policy::HashPinned, Policy::HashRequired] {
        let registry = registry(policy);
        registry.load_path(&manifest).expect("the hash fits");
        assert_eq!(registry.plugins()[0].file, library.canonicalize().unwrap());
        assert!(!is_mapped(&library), "the file itself was opened");
        assert!(is_mapped(Path::new("memfd:pinned-library.so")), "not from memory");
    }
    // Shortening a mapped file would end the process at the next call; what runs is no such file.
    fs::OpenOptions::new().write(true).open(&library).unwrap().set_len(0).unwrap();
    let registry = registry(Policy::Any);
    registry.load_path(&manifest).expect_err("an empty file");
    // Opened by its path where no hash counts, so that debuggers know it.
    let folder = workshop("by-path");
    let library = folder.compile("good.c", "library.so");
    let manifest = folder.manifest(&ManifestText::default(), "library.so");
    registry.load_path(&manifest).expect("good");
    assert!(is_mapped(&library.canonicalize().unwrap()));
}

#[test]
fn two_registries_share_a_pinned_library() {
    let folder = workshop("shared");
    folder.compile("good.c", "library.so");
    let manifest = pin(&folder, "library.so");
    let tables = [(); 2].map(|()| {
        let registry = registry(Policy::default());
        registry.load_path(&manifest).expect("good");
        registry.lookup(ComponentKind::Loss, "under-test").expect("registered").table as usize
    });
    assert_eq!(tables[0], tables[1], "it was opened twice, and never closed");
}

#[test]
fn libraries_beside_a_plugin_are_found_unless_its_hash_is_pinned() {
    let folder = workshop("origin");
    let source = folder.folder().join("neighbour.c");
    fs::write(&source, "int function_that_nobody_wrote(void) { return 7; }\n").unwrap();
    let neighbour = folder.folder().join("libneighbour.so");
    let made = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-Wl,-soname,libneighbour.so", "-o"])
        .arg(&neighbour)
        .arg(&source)
        .status();
    assert!(made.expect("a compiler").success());
    let more = ["-Wl,--no-as-needed".to_owned(), "-Wl,-rpath,$ORIGIN".to_owned()];
    let more = [&more[..], &[neighbour.display().to_string()]].concat();
    folder.compile_with("undefined_symbol.c", "library.so", &more);
    // First, because a neighbour that is loaded is found by its name.
    let error = registry(Policy::default()).load_path(&pin(&folder, "library.so"));
    let text = error.expect_err("nothing lies beside memory").to_string();
    for word in ["libneighbour.so", "opened from memory", "$ORIGIN"] {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    let manifest = folder.manifest(&ManifestText::default(), "library.so");
    registry(Policy::default()).load_path(&manifest).expect("the neighbour is found");
}

#[test]
fn what_everybody_may_write_to_is_refused() {
    let folder = workshop("modes");
    let inner = folder.folder().join("above/plugin");
    fs::create_dir_all(&inner).unwrap();
    folder.compile("good.c", "library.so");
    let manifest = folder.manifest(&ManifestText::default(), "library.so");
    let (library, moved) = (inner.join("library.so"), inner.join("loss-under-test.toml"));
    fs::rename(folder.folder().join("library.so"), &library).unwrap();
    fs::rename(manifest, &moved).unwrap();
    for (open, what) in [
        (library.as_path(), "the library"),
        (&moved, "the manifest"),
        (&inner, "the manifest"),
        (inner.parent().unwrap(), "the manifest"),
    ] {
        let before = fs::metadata(open).unwrap().mode() & 0o7777;
        mode(open, before | 0o002);
        for policy in [Policy::HashPinned, Policy::HashRequired] {
            let error = registry(policy).load_path(&moved).expect_err("anybody could change it");
            assert!(matches!(error, LoadError::Policy(_)), "{error}");
            let text = error.to_string();
            let open = open.canonicalize().unwrap().display().to_string();
            for word in [what, &open, "chmod o-w", "policy `any`"] {
                assert!(text.contains(word), "{word:?} is not in: {text}");
            }
        }
        registry(Policy::Any).load_path(&moved).expect("any");
        // A folder of which only the owner of a file may rename it is as good as another one.
        if open.is_dir() {
            mode(open, before | 0o1002);
            registry(Policy::default()).load_path(&moved).expect("sticky");
        }
        mode(open, before);
        registry(Policy::default()).load_path(&moved).expect("closed again");
    }
    // A list tells of it before anything is loaded.
    mode(&moved, 0o666);
    let listings = registry(Policy::default()).discover(&SearchPath::only(&[inner]));
    assert!(matches!(listings[0].problem, Some(LoadError::Policy(_))), "{:?}", listings[0].problem);
}

#[test]
fn what_belongs_to_another_user_is_refused() {
    let folder = workshop("owners");
    let manifest = folder.plugin("good.c", &ManifestText::default());
    let library = folder.folder().join("loss-under-test.so");
    for file in [&library, &manifest, &folder.folder().to_path_buf()] {
        let owner = fs::metadata(file).unwrap().uid();
        // Only the administrator can give files away.
        if chown(file, Some(owner + 4242), None).is_err() {
            println!("not run: this user cannot give files away");
            return;
        }
        let error = registry(Policy::default()).load_path(&manifest).expect_err("another's");
        assert!(matches!(error, LoadError::Policy(_)), "{error}");
        assert!(error.to_string().contains(&format!("number {}", owner + 4242)), "{error}");
        registry(Policy::Any).load_path(&manifest).expect("any");
        chown(file, Some(owner), None).unwrap();
        registry(Policy::default()).load_path(&manifest).expect("given back");
    }
}
