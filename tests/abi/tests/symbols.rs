//! Libraries export what the headers declare and nothing else.
//!
//! Looks at what `cargo xtask stage` left beside the test programs. With `ET_STAGED=1` an empty place is a failure.

use easytransfer_abi_tests::{exported, golden, root};
use std::{env, fs, path::PathBuf};

/// The folder with the built libraries: the parent of the folder of this test program.
fn built() -> PathBuf {
    let program = env::current_exe().unwrap();
    program.ancestors().nth(2).unwrap().to_path_buf()
}

/// Says that there is nothing to look at, which is a failure where everything was staged before.
fn not_staged(what: &str) {
    assert!(env::var_os("ET_STAGED").is_none(), "{what} was not staged, run `cargo xtask stage`");
    println!("not run: {what} is not staged");
}

/// The libraries of all staged plugins.
fn plugins() -> Vec<PathBuf> {
    let folders = fs::read_dir(built().join("plugins")).into_iter().flatten().flatten();
    let files = folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten());
    let plugins: Vec<PathBuf> = files
        .flatten()
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "so"))
        .collect();
    if plugins.is_empty() {
        not_staged("a plugin");
    }
    plugins
}

#[test]
fn symbols_of_a_plugin_are_the_entry_alone() {
    for plugin in plugins() {
        let folder = plugin.parent().and_then(|folder| folder.file_name()).unwrap();
        let entry = format!("et_plugin_entry_{}", folder.to_str().unwrap());
        assert_eq!(exported(&plugin), [entry], "{}", plugin.display());
    }
}

#[test]
fn plugins_are_small() {
    for plugin in plugins() {
        let size = fs::metadata(&plugin).unwrap().len();
        assert!(size < 650_000, "{}: {size} bytes, expected less than 650000", plugin.display());
    }
}

#[test]
fn symbols_of_the_library_are_what_the_header_declares() {
    let library = built().join("libeasytransfer.so");
    if !library.exists() {
        return not_staged("libeasytransfer.so");
    }
    let symbols = exported(&library);
    let header = fs::read_to_string(root().join("include/easytransfer.h")).unwrap();
    for symbol in &symbols {
        let declared =
            header.contains(&format!(" {symbol}(")) || header.contains(&format!("*{symbol}("));
        assert!(declared, "{symbol} is exported, but easytransfer.h does not declare it");
    }
    let text = symbols.join("\n") + "\n";
    let old = golden("symbols.txt", &text);
    for symbol in old.lines() {
        assert!(
            symbols.iter().any(|present| present == symbol),
            "{symbol} is not exported any more"
        );
    }
    assert_eq!(old, text, "functions were added, run with ET_BLESS=1");
}
