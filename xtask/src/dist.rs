//! `dist`: `target/dist/easytransfer-VERSION-PLATFORM.tar.gz` with everything that a user of programs, headers and plugins needs:
//! `bin`, `lib` (with pkg-config and CMake files), `include`, `plugins`.

use crate::{
    Context, Failure,
    process::{self, cargo},
    stage,
};
use std::{env::consts, fs, path::Path, process::Command};

/// Builds, collects and packs; prints the path of the archive.
pub fn run(context: &Context) -> Result<(), Failure> {
    process::show(&mut cargo(context, ["build", "--release", "--workspace"]))?;
    let plugins = stage::stage(context)?;
    let release = process::release(context);
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("easytransfer-{version}-{}", stage::platform());
    let parent = release.with_file_name("dist");
    let folder = parent.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .map_err(|error| Failure(format!("remove {}: {error}", folder.display())))?;
    }
    let shared = format!("{}easytransfer{}", consts::DLL_PREFIX, consts::DLL_SUFFIX);
    let command = format!("easytransfer{}", consts::EXE_SUFFIX);
    copy(&release.join(&command), &folder.join("bin").join(&command))?;
    for library in [shared.as_str(), "libeasytransfer.a"] {
        copy(&release.join(library), &folder.join("lib").join(library))?;
    }
    for header in ["easytransfer.h", "easytransfer_plugin.h", "easytransfer.hpp"] {
        copy(&context.root.join("include").join(header), &folder.join("include").join(header))?;
    }
    for plugin in plugins {
        // Beside the command, which is where it looks first.
        let from = release.join("plugins").join(&plugin.id);
        let to = folder.join("bin/plugins").join(&plugin.id);
        let library = plugin.library.file_name().unwrap_or_default();
        copy(&plugin.library, &to.join(library))?;
        let manifest = format!("{}.toml", plugin.id);
        copy(&from.join(&manifest), &to.join(&manifest))?;
    }
    for (template, target) in [
        ("easytransfer.pc", "lib/pkgconfig"),
        ("easytransfer-plugin.pc", "lib/pkgconfig"),
        ("easytransferConfig.cmake", "lib/cmake/easytransfer"),
        ("easytransferConfigVersion.cmake", "lib/cmake/easytransfer"),
    ] {
        let from = context.root.join("capi/packaging").join(format!("{template}.in"));
        let text = fs::read_to_string(&from)
            .map_err(|error| Failure(format!("read {}: {error}", process::shown(context, &from))))?
            .replace("@VERSION@", version)
            .replace("@SUFFIX@", consts::DLL_SUFFIX);
        let target = folder.join(target);
        fs::create_dir_all(&target)
            .and_then(|()| fs::write(target.join(template), text))
            .map_err(|error| Failure(format!("write {}: {error}", target.display())))?;
    }
    for file in ["LICENSE", "README.md", "CHANGELOG.md"] {
        copy(&context.root.join(file), &folder.join(file))?;
    }
    let archive = parent.join(format!("{name}.tar.gz"));
    process::show(Command::new("tar").arg("-C").arg(&parent).arg("-czf").arg(&archive).arg(&name))?;
    println!("written: {}", process::shown(context, &archive));
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    to.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::copy(from, to))
        .map(drop)
        .map_err(|error| Failure(format!("copy {} to {}: {error}", from.display(), to.display())))
}
