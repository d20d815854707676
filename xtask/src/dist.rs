//! `dist`: `target/dist/easytransfer-VERSION-PLATFORM.tar.gz` with everything that a user of programs, headers and
//! plugins needs: `bin`, `lib` (shared and static library, plugins, pkg-config and CMake files), `include`, `examples`,
//! a README of its own and the licences. It may be unpacked anywhere.

use crate::{
    Context, Failure, crates, licences,
    process::{self, cargo},
    programs, shipped, stage,
};
use std::{env::consts, fs, path::Path, process::Command};

/// What the shared library is called at run time, its SONAME (`capi/build.rs`).
const SONAME: &str = "libeasytransfer.so.0";

/// What a static library of Rust needs from the platform beside it, as `rustc --print native-static-libs` says.
const STATIC_NEEDS: &str = "-lpthread -lm -ldl";

/// Builds, collects and packs; prints the path of the archive.
pub fn run(context: &Context) -> Result<(), Failure> {
    process::show(&mut cargo(context, ["build", "--release", "--workspace"]))?;
    stage::stage(context)?;
    let release = process::release(context);
    let name = format!("easytransfer-{}-{}", env!("CARGO_PKG_VERSION"), stage::platform());
    let parent = release.with_file_name("dist");
    let folder = parent.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .map_err(|error| Failure(format!("remove {}: {error}", folder.display())))?;
    }
    collect(context, &release, &folder)?;
    let archive = parent.join(format!("{name}.tar.gz"));
    process::show(Command::new("tar").arg("-C").arg(&parent).arg("-czf").arg(&archive).arg(&name))?;
    println!("written: {}", process::shown(context, &archive));
    Ok(())
}

/// Lays out a distribution in `folder` from what was built and staged in `release`.
pub fn collect(context: &Context, release: &Path, folder: &Path) -> Result<(), Failure> {
    let command = format!("easytransfer{}", consts::EXE_SUFFIX);
    ship(context, &release.join(&command), &folder.join("bin").join(&command), folder)?;
    libraries(context, release, folder)?;
    for header in headers(context)? {
        copy(&context.root.join("include").join(&header), &folder.join("include").join(header))?;
    }
    crates::collect(context, folder)?;
    for id in stage::ids(context)? {
        // The command looks in `../lib/easytransfer/plugins`.
        let to = folder.join("lib/easytransfer/plugins").join(&id);
        let from = release.join("plugins").join(&id);
        let (library, manifest) = (stage::library_file_name(&id), format!("{id}.toml"));
        ship(context, &from.join(&library), &to.join(&library), folder)?;
        let hashed = |file: &Path| fs::read(file).map(|bytes| stage::digest(&bytes));
        let read = fs::read_to_string(from.join(&manifest));
        let text = read.and_then(|text| {
            Ok(text.replace(&hashed(&from.join(&library))?, &hashed(&to.join(&library))?))
        });
        let text =
            text.map_err(|error| Failure(format!("the manifest of {}: {error}", to.display())))?;
        write(&to.join(&manifest), &text)?;
    }
    for (template, target) in [
        ("easytransfer.pc", "lib/pkgconfig/easytransfer.pc"),
        ("easytransfer-static.pc", "lib/pkgconfig/easytransfer-static.pc"),
        ("easytransfer-plugin.pc", "lib/pkgconfig/easytransfer-plugin.pc"),
        ("easytransferConfig.cmake", "lib/cmake/easytransfer/easytransferConfig.cmake"),
        (
            "easytransferConfigVersion.cmake",
            "lib/cmake/easytransfer/easytransferConfigVersion.cmake",
        ),
        ("examples.cmake", "examples/CMakeLists.txt"),
        ("README.md", "README.md"),
    ] {
        let from = context.root.join("capi/packaging").join(format!("{template}.in"));
        let text = fs::read_to_string(&from)
            .map_err(|error| Failure(format!("read {}: {error}", process::shown(context, &from))))?
            .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
            .replace(
                "@MINOR@",
                concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR")),
            )
            .replace("@PLATFORM@", &stage::platform())
            .replace("@SUFFIX@", consts::DLL_SUFFIX)
            .replace("@SONAME@", SONAME)
            .replace("@STATIC_NEEDS@", STATIC_NEEDS)
            .replace("@STATIC_NEEDS_LIST@", &STATIC_NEEDS.replace(' ', ";"));
        write(&folder.join(target), &text)?;
    }
    examples(context, folder)?;
    for file in ["LICENSE", "CHANGELOG.md"] {
        copy(&context.root.join(file), &folder.join(file))?;
    }
    let built = ["easytransfer-capi", "easytransfer-cli"];
    write(&folder.join("THIRD-PARTY.txt"), &licences::third_party(context, &built)?)
}

/// The programs in C and C++ with what they include.
fn examples(context: &Context, folder: &Path) -> Result<(), Failure> {
    for language in programs::LANGUAGES {
        let name = language.folder.trim_start_matches("hosts/");
        let from = context.root.join(language.folder);
        for entry in fs::read_dir(&from).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|ending| ending != "md") {
                copy(&path, &folder.join("examples").join(name).join(entry.file_name()))?;
            }
        }
    }
    Ok(())
}

/// Names of all headers, those of C and of C++.
fn headers(context: &Context) -> Result<Vec<String>, Failure> {
    let folder = context.root.join("include");
    let entries = fs::read_dir(&folder)
        .map_err(|error| Failure(format!("read {}: {error}", process::shown(context, &folder))))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// The shared library under its version, with the links that the dynamic linker and the linker follow, and the static
/// one.
fn libraries(context: &Context, release: &Path, all: &Path) -> Result<(), Failure> {
    let folder = &all.join("lib");
    let shared = format!("{}easytransfer{}", consts::DLL_PREFIX, consts::DLL_SUFFIX);
    #[cfg(target_os = "linux")]
    {
        let versioned = format!("{shared}.{}", env!("CARGO_PKG_VERSION"));
        ship(context, &release.join(&shared), &folder.join(&versioned), all)?;
        for (link, to) in [(SONAME, versioned.as_str()), (shared.as_str(), SONAME)] {
            std::os::unix::fs::symlink(to, folder.join(link)).map_err(|error| {
                Failure(format!("link {link} in {}: {error}", folder.display()))
            })?;
        }
    }
    #[cfg(not(target_os = "linux"))]
    ship(context, &release.join(&shared), &folder.join(&shared), all)?;
    let archive = "libeasytransfer.a";
    let bytes = read(&release.join(archive))?;
    write(&folder.join(archive), shipped::without_paths(context, bytes))
}

/// Copies a program or library without paths of this machine; its debug information goes to `debug` of `folder`.
fn ship(context: &Context, from: &Path, to: &Path, folder: &Path) -> Result<(), Failure> {
    copy(from, to)?;
    shipped::split_debug(context, to, folder)?;
    let bytes = read(to)?;
    write(to, shipped::without_paths(context, bytes))
}

fn read(from: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(from).map_err(|error| Failure(format!("read {}: {error}", from.display())))
}

fn write(to: &Path, text: impl AsRef<[u8]>) -> Result<(), Failure> {
    to.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(to, text))
        .map_err(|error| Failure(format!("write {}: {error}", to.display())))
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    to.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::copy(from, to))
        .map(drop)
        .map_err(|error| Failure(format!("copy {} to {}: {error}", from.display(), to.display())))
}
