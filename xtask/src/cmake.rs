//! CMake for the test of a program that is built against a distribution: the system's, else the wheel that PyPI has
//! of it.

use crate::{
    Context, Failure,
    process::{self, has},
};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

/// The wheel, as pip names it.
const WHEEL: &str = "cmake==4.4.5";

/// Folder of the fetched wheel.
fn folder(context: &Context) -> PathBuf {
    process::release(context).with_file_name("cmake")
}

/// The command, if the system has one or an earlier run fetched it.
pub fn installed(context: &Context) -> Option<PathBuf> {
    let fetched = folder(context).join("cmake/data/bin/cmake");
    if has("cmake") { Some("cmake".into()) } else { Some(fetched).filter(|path| path.exists()) }
}

/// The command; fetches it where there is none. Errors: neither is possible.
pub fn fetched(context: &Context) -> Result<PathBuf, Failure> {
    if let Some(found) = installed(context) {
        return Ok(found);
    }
    let target = folder(context);
    let beside = target.with_file_name("cmake.new");
    println!("fetching {WHEEL} into {}", process::shown(context, &target));
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--target"]);
    pip.arg(&beside).arg(WHEEL).stderr(Stdio::null());
    // Renamed last, so that an interrupted installation is begun again.
    let moved = process::show(&mut pip).and_then(|()| {
        fs::rename(&beside, &target)
            .map_err(|error| Failure(format!("rename {}: {error}", beside.display())))
    });
    let why = match (moved, installed(context)) {
        (Ok(()), Some(found)) => return Ok(found),
        (Ok(()), None) => "the wheel has no cmake/data/bin/cmake".to_owned(),
        (Err(failure), _) => failure.0,
    };
    let _ = fs::remove_dir_all(&beside);
    Err(Failure(format!("no cmake in PATH, and it could not be fetched ({why}); install cmake")))
}
