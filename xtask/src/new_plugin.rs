//! `new-plugin KIND NAME [--out DIR]`: starts a plugin from a template that compiles as it is.

use crate::{Context, Failure, process};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A kind of plugin with a template: the word, the start of ids, and the template's files.
struct Kind {
    word: &'static str,
    prefix: &'static str,
    files: [(&'static str, &'static str); 3],
}

macro_rules! kind {
    ($word:literal, $prefix:literal) => {
        Kind {
            word: $word,
            prefix: $prefix,
            files: [
                ("Cargo.toml", include_str!(concat!("../templates/", $word, "/Cargo.toml.in"))),
                ("src/lib.rs", include_str!(concat!("../templates/", $word, "/lib.rs.in"))),
                ("plugin.toml", include_str!(concat!("../templates/", $word, "/plugin.toml.in"))),
            ],
        }
    };
}

const KINDS: [Kind; 2] = [kind!("loss", "loss"), kind!("strategy", "tl")];

/// What the workspace would say. The empty table keeps Cargo from looking for one further up.
const OUTSIDE: &str = "
[lints.rust]
unexpected_cfgs = { level = \"warn\", check-cfg = [\"cfg(et_static)\"] }

[profile.release]
opt-level = \"z\"
lto = \"fat\"
codegen-units = 1
strip = true

[workspace]";

/// Writes the plugin and prints what comes next. Errors: unknown kind, bad name, a folder that exists.
pub fn run(context: &Context, kind: &str, name: &str, out: Option<&Path>) -> Result<(), Failure> {
    let folder = write(context, kind, name, out)?;
    println!("written: {}", process::shown(context, &folder));
    println!("next: edit src/lib.rs, then run `cargo build --release` there");
    if out.is_none() {
        println!("then `cargo xtask stage` puts it where programs find it");
    }
    Ok(())
}

fn write(
    context: &Context,
    kind: &str,
    name: &str,
    out: Option<&Path>,
) -> Result<PathBuf, Failure> {
    let Some(kind) = KINDS.iter().find(|known| known.word == kind) else {
        let known = KINDS.map(|known| known.word).join(", ");
        return Err(Failure(format!("new-plugin: no kind `{kind}`, known kinds: {known}")));
    };
    let fits = |character: char| matches!(character, 'a'..='z' | '0'..='9' | '-');
    if !name.starts_with(|first: char| first.is_ascii_lowercase())
        || !name.chars().all(fits)
        || name.ends_with('-')
    {
        return Err(Failure(format!(
            "new-plugin: name `{name}`: expected lower-case letters, digits and dashes, beginning with a letter"
        )));
    }
    let id = format!("{}-{name}", kind.prefix);
    let folder = out.map_or_else(|| context.root.join("plugins").join(&id), Path::to_path_buf);
    if folder.exists() {
        return Err(Failure(format!("new-plugin: {} exists already", folder.display())));
    }
    let (sdk, workspace) = match out {
        None => ("workspace = true".to_owned(), "\n[lints]\nworkspace = true".to_owned()),
        Some(_) => {
            let path = context.root.join("sdk/plugin").display().to_string();
            (format!("path = {path:?}"), OUTSIDE.to_owned())
        }
    };
    for (file, template) in kind.files {
        let text = template
            .replace("@id@", &id)
            .replace("@name@", name)
            .replace("@Type@", &type_name(name))
            .replace("@crate@", &id.replace('-', "_"))
            .replace("@sdk@", &sdk)
            .replace("@workspace@", &workspace);
        let path = folder.join(file);
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, text))
            .map_err(|error| Failure(format!("write {}: {error}", path.display())))?;
    }
    Ok(folder)
}

/// "my-loss" as `MyLoss`.
fn type_name(name: &str) -> String {
    let capitalised = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
    };
    name.split('-').map(capitalised).collect::<Vec<String>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn new_plugin_fills_every_placeholder_and_keeps_what_exists() {
        for kind in KINDS {
            let folder = scratch(kind.word);
            write(&Context::here(), kind.word, "my-own", Some(&folder)).unwrap();
            for (file, _) in kind.files {
                let text = fs::read_to_string(folder.join(file)).unwrap();
                assert!(!text.contains('@'), "{file}: {text}");
                assert!(text.contains("my-own"), "{file}: {text}");
            }
            let again = write(&Context::here(), kind.word, "my-own", Some(&folder)).unwrap_err();
            assert!(again.0.contains("exists already"), "{again}");
            fs::remove_dir_all(folder).unwrap();
        }
    }

    #[test]
    fn new_plugin_bad_kind_and_bad_name_are_errors() {
        let folder = scratch("bad");
        for (kind, name) in
            [("banana", "a"), ("loss", "A"), ("loss", "a b"), ("loss", "-a"), ("loss", "")]
        {
            assert!(write(&Context::here(), kind, name, Some(&folder)).is_err());
        }
        assert!(!folder.exists());
    }
}
