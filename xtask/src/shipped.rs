//! What becomes of a binary before it is shipped: paths of the machine that built it are replaced, and debug
//! information, where a build has some, goes into a file of its own.
//!
//! The compiler could replace paths itself (`--remap-path-prefix`), but only by flags that name the folders of this
//! machine; cargo would then build everything again, candle included, whenever somebody builds with other flags. So the
//! bytes are replaced here, by a text of the same length: strings in a binary have lengths and places.

use crate::{
    Context, Failure,
    process::{self, has},
};
use std::{env, fs, path::Path, path::PathBuf, process::Command};

/// Folders of this machine that a build may write into binaries, each with what is written in its place.
fn folders(context: &Context) -> Vec<(Vec<u8>, Vec<u8>)> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let of_home = |variable: &str, name: &str| {
        env::var_os(variable).map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(name)))
    };
    let root = context.root.canonicalize().ok();
    // Cargo's folders first: they may lie in the workspace, or the other way round.
    [
        (of_home("CARGO_HOME", ".cargo"), "/cargo"),
        (of_home("RUSTUP_HOME", ".rustup"), "/rustup"),
        (Some(context.root.clone()), "/easytransfer"),
        (root, "/easytransfer"),
    ]
    .into_iter()
    .filter_map(|(folder, name)| {
        let folder = folder?.to_str()?.as_bytes().to_vec();
        // As long as the folder: cut, or with more slashes, which mean the same in a path.
        let mut neutral = name.as_bytes().to_vec();
        neutral.resize(folder.len(), b'/');
        // What is as short as this says nothing, and might be anything.
        (folder.len() >= 4).then_some((folder, neutral))
    })
    .collect()
}

/// The bytes of a binary without paths of this machine; as many as before.
pub fn without_paths(context: &Context, mut bytes: Vec<u8>) -> Vec<u8> {
    for (folder, neutral) in folders(context) {
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(folder.len()).position(|part| part == folder) {
            let (begin, end) = (at + found, at + found + folder.len());
            // A folder's own name, and not the beginning of another one's.
            if !bytes
                .get(end)
                .is_some_and(|next| next.is_ascii_alphanumeric() || b"-_.".contains(next))
            {
                bytes[begin..end].copy_from_slice(&neutral);
            }
            at = end;
        }
    }
    bytes
}

/// Moves the debug information of a program or library into `debug/NAME.debug` of `folder`, where the file then points
/// to, so that debuggers find it in a folder of theirs. Does nothing for a file without any, which is what the profiles
/// build (a build with CARGO_PROFILE_RELEASE_DEBUG=line-tables-only and CARGO_PROFILE_RELEASE_STRIP=none has some),
/// and where there is no objcopy.
pub fn split_debug(context: &Context, file: &Path, folder: &Path) -> Result<(), Failure> {
    let sections =
        fs::read(file).map_err(|error| Failure(format!("read {}: {error}", file.display())))?;
    if !has_section(&sections, b".debug_line") || !has("objcopy") {
        return Ok(());
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let debug = folder.join("debug").join(format!("{name}.debug"));
    let made = debug.parent().map_or(Ok(()), fs::create_dir_all);
    made.map_err(|error| Failure(format!("make the folder of {}: {error}", debug.display())))?;
    process::output(Command::new("objcopy").arg("--only-keep-debug").arg(file).arg(&debug))?;
    // Now, because what the file gets is a checksum of this one.
    fs::read(&debug)
        .and_then(|bytes| fs::write(&debug, without_paths(context, bytes)))
        .map_err(|error| Failure(format!("{}: {error}", debug.display())))?;
    let mut strip = Command::new("objcopy");
    strip.arg("--strip-all").arg(format!("--add-gnu-debuglink={}", debug.display())).arg(file);
    process::output(&mut strip).map(drop)
}

/// Whether an ELF file of this machine's kind has a section of that name. ("ELF-64 Object File Format", version 1.5.)
fn has_section(file: &[u8], name: &[u8]) -> bool {
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = file.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let find = || {
        let (table, size) = (number(40, 8)?, number(58, 2)?);
        let (count, of_names) = (number(60, 2)?, number(62, 2)?);
        let names = number(table + of_names * size + 24, 8)?;
        (0..count).find(|index| {
            let begin = number(table + index * size, 4).map(|at| names + at);
            let found = begin.and_then(|begin| file.get(begin..begin + name.len() + 1));
            found.is_some_and(|found| found.starts_with(name) && found.ends_with(&[0]))
        })
    };
    file.starts_with(b"\x7fELF\x02\x01") && find().is_some()
}

#[cfg(test)]
mod tests {
    use super::{folders, has, has_section, split_debug, without_paths};
    use crate::Context;
    use std::{fs, process::Command};

    #[test]
    fn paths_of_this_machine_are_replaced_by_as_many_bytes() {
        let context = Context { root: "/build/of/somebody".into() };
        let text =
            b"\0/build/of/somebody/sdk/a.rs\0/build/of/somebody-else/b.rs /build/of/somebody\0";
        let found = without_paths(&context, text.to_vec());
        let expected =
            b"\0/easytransfer//////sdk/a.rs\0/build/of/somebody-else/b.rs /easytransfer/////\0";
        assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(expected));
        assert!(folders(&context).iter().all(|(from, to)| from.len() == to.len()));
        // A root that says nothing is left alone.
        let short = without_paths(&Context { root: "/w".into() }, b"/w/x".to_vec());
        assert_eq!(short, b"/w/x");
    }

    #[test]
    fn debug_information_goes_apart_without_paths() {
        if !has("gcc") || !has("objcopy") {
            println!("not run: no gcc or no objcopy");
            return;
        }
        let folder =
            std::env::temp_dir().join(format!("easytransfer-debug-{}", std::process::id()));
        let source = folder.join("source");
        fs::create_dir_all(&source).unwrap();
        fs::write(source.join("main.c"), "int main(void) { return 7; }\n").unwrap();
        let program = folder.join("program");
        let compiled = Command::new("gcc")
            .arg("-g")
            .arg(source.join("main.c"))
            .arg("-o")
            .arg(&program)
            .status();
        assert!(compiled.unwrap().success());
        let context = Context { root: source.clone() };
        split_debug(&context, &program, &folder).unwrap();
        let holds = |path: &std::path::Path, part: &str| {
            fs::read(path).unwrap().windows(part.len()).any(|found| found == part.as_bytes())
        };
        let debug = folder.join("debug/program.debug");
        assert!(!holds(&program, ".debug_line") && holds(&program, "program.debug"));
        // The name alone, which every program in Rust has in it, is no section.
        let here = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!has_section(&here, b".no_such_section") && has_section(&here, b".text"));
        assert!(holds(&debug, ".debug_line") && !holds(&debug, source.to_str().unwrap()));
        assert_eq!(Command::new(&program).status().unwrap().code(), Some(7));
        // A file without any stays as it is.
        let before = fs::read(&program).unwrap();
        fs::remove_dir_all(folder.join("debug")).unwrap();
        split_debug(&context, &program, &folder).unwrap();
        assert!(before == fs::read(&program).unwrap() && !folder.join("debug").exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
