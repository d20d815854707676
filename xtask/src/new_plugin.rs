//! `new-plugin KIND NAME [--language LANGUAGE] [--out DIR]`: what `easytransfer plugin new` does, and crates in
//! `plugins/` of this tree.

use crate::{Context, Failure, process};
use easytransfer_scaffold::{Language, NewPlugin, Sdk};
use std::path::PathBuf;

/// Reads the options of the command, writes the plugin and prints what comes next. Errors: an unknown option, kind or
/// language, a bad name, a folder that exists.
pub fn run(context: &Context, kind: &str, name: &str, options: &[&str]) -> Result<(), Failure> {
    let fault = |text: String| Failure(format!("new-plugin: {text}"));
    let (mut language, mut out) = (Language::Rust, None);
    for pair in options.chunks(2) {
        match *pair {
            ["--language", word] => language = Language::of(word).map_err(fault)?,
            ["--out", folder] => out = Some(PathBuf::from(folder)),
            _ => {
                return Err(fault(format!(
                    "`{}`: expected --language LANGUAGE or --out DIR",
                    pair.join(" ")
                )));
            }
        }
    }
    let plugin = NewPlugin::new(kind, name, language).map_err(fault)?;
    let in_tree = out.is_none() && language == Language::Rust;
    let folder = if in_tree {
        plugin.write_in_tree(&context.root).map_err(fault)?
    } else {
        // Those in C and C++ are no part of the workspace.
        let folder = out.unwrap_or_else(|| context.root.join("..").join(plugin.id()));
        plugin.write(&sdk(context), &folder).map_err(fault)?;
        folder
    };
    print!("{}", plugin.next_steps(&folder, in_tree));
    Ok(())
}

/// The SDK of this tree.
pub fn sdk(context: &Context) -> Sdk {
    Sdk {
        plugin: context.root.join("sdk/plugin"),
        include: context.root.join("include"),
        command: process::release(context).join("easytransfer"),
    }
}
