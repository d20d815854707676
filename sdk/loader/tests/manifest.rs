//! Manifests: what is read, and what is said of one that is wrong.

use easytransfer_loader::{ComponentKind, LoadError, PluginManifest, Provided};
use std::path::{Path, PathBuf};

const GOOD: &str = r#"manifest_version = 1
id = "loss-basic"
version = "0.1.0"
publisher = "EasyTransfer"
license = "Apache-2.0"
description = "The common losses"

[abi]
major = 0
minor = 1
requires = ["et.tensor/1", "et.nn/1"]
optional = ["et.log/1"]

[[provides]]
kind = "loss"
name = "mse"

[[provides]]
kind = "loss"
name = "cross-entropy"

[library]
linux_amd64 = "lib/libloss_basic.so"
windows_amd64 = "loss_basic.dll"

[sha256]
linux_amd64 = "ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB"
"#;

fn parse(text: &str) -> Result<PluginManifest, LoadError> {
    PluginManifest::parse(text, Path::new("/plugins/loss-basic.toml"))
}

/// Parses `GOOD` with one text replaced; the error must name the line and the words.
#[track_caller]
fn wrong(from: &str, to: &str, line: usize, words: &[&str]) {
    assert!(GOOD.contains(from), "{from:?} is not in the good manifest");
    let error = parse(&GOOD.replacen(from, to, 1)).expect_err("the manifest is wrong");
    assert!(matches!(error, LoadError::PluginManifest(_)));
    let text = error.to_string();
    let line = format!("line {line}: ");
    for word in ["plugin \"loss-basic\" (/plugins/loss-basic.toml)", &line].iter().chain(words) {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn every_field_is_read() {
    let manifest = parse(GOOD).expect("good");
    assert_eq!((manifest.id.as_str(), manifest.version.as_str()), ("loss-basic", "0.1.0"));
    assert_eq!((manifest.abi_major, manifest.abi_minor), (0, 1));
    assert_eq!(manifest.requires, ["et.tensor/1", "et.nn/1"]);
    assert_eq!(manifest.optional, ["et.log/1"]);
    assert_eq!(manifest.description, "The common losses");
    let loss = |name: &str| Provided { kind: ComponentKind::Loss, name: name.to_owned() };
    assert_eq!(manifest.provides, [loss("cross-entropy"), loss("mse")]);
    let library = manifest.library_path("linux_amd64");
    assert_eq!(library, Some(PathBuf::from("/plugins/lib/libloss_basic.so")));
    assert_eq!(manifest.library_path("linux_arm64"), None);
    assert_eq!(manifest.sha256["linux_amd64"], "ab".repeat(32));
}

#[test]
fn unknown_keys_name_the_nearest() {
    wrong("license", "licence", 5, &["unknown key `licence`", "did you mean `license`?"]);
    wrong("requires", "require", 11, &["unknown key `abi.require`", "did you mean `requires`?"]);
    wrong("name = \"mse\"", "nam = \"mse\"", 16, &["`provides.nam`", "did you mean `name`?"]);
    wrong("windows_amd64", "windows_amd46", 24, &["did you mean `windows_amd64`?"]);
}

#[test]
fn missing_keys_are_named() {
    wrong("version = \"0.1.0\"\n", "", 1, &["missing key `version`", "no such key"]);
    wrong("minor = 1\n", "", 8, &["missing key `abi.minor`", "a whole number"]);
    wrong("kind = \"loss\"\n", "", 14, &["missing key `provides.kind`"]);
}

#[test]
fn wrong_values_say_what_was_expected() {
    wrong("manifest_version = 1", "manifest_version = 2", 1, &["required: 1,", "found: 2"]);
    wrong("major = 0", "major = -1", 9, &["`abi.major`", "whole number", "found: -1"]);
    wrong("major = 0", "major = \"0\"", 9, &["`abi.major`", "found: string"]);
    wrong("\"et.nn/1\"]", "5]", 11, &["`abi.requires`", "an array of texts"]);
    wrong("kind = \"loss\"", "kind = \"los\"", 15, &["nearest \"loss\"", "strategy"]);
    wrong("\"mse\"", "\"cross-entropy\"", 20, &["loss \"cross-entropy\" twice"]);
    wrong("\"lib/libloss", "\"/lib/libloss", 23, &["`library.linux_amd64`", "relative"]);
    wrong("ABAB", "XY", 27, &["`sha256.linux_amd64`", "64 hexadecimal digits"]);
    wrong("id = \"loss-basic\"", "id = \"loss\"", 2, &["\"loss-basic\", the file's name"]);
    wrong("id = \"loss-basic\"", "id = \"Loss Basic\"", 2, &["lower-case letters"]);
    wrong("version = \"0.1.0\"", "version = \"\"", 3, &["`version`", "an empty text"]);
}

#[test]
fn broken_toml_is_an_error_with_its_line() {
    wrong("[abi]", "[abi", 8, &["not TOML"]);
    let error = parse("").expect_err("empty");
    assert!(error.to_string().contains("missing key `manifest_version`"), "{error}");
}
