//! Running programs: with their output shown, and with what they said in the error.

use crate::{Context, Failure};
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// `cargo` in the workspace root, with the arguments.
pub fn cargo<const N: usize>(context: &Context, arguments: [&str; N]) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&context.root);
    command
}

/// Runs a command with its output shown. Errors: its status, or that it does not start.
pub fn show(command: &mut Command) -> Result<(), Failure> {
    let line = describe(command);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure(format!("`{line}`: {status}"))),
        Err(error) => Err(Failure(format!("`{line}` does not start: {error}"))),
    }
}

/// Standard output of a command. Errors: its status with all it said, or that it does not start.
pub fn output(command: &mut Command) -> Result<String, Failure> {
    let line = describe(command);
    let output =
        command.output().map_err(|error| Failure(format!("`{line}` does not start: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(Failure(format!("`{line}`: {}\n{text}{errors}", output.status)))
}

/// True if `program --version` succeeds.
pub fn has(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Folder of what the release profile built.
pub fn release(context: &Context) -> PathBuf {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    context.root.join(target).join("release")
}

/// A path as text for a message: relative to the workspace where it lies inside.
pub fn shown(context: &Context, path: &Path) -> String {
    path.strip_prefix(&context.root).unwrap_or(path).display().to_string()
}

fn describe(command: &Command) -> String {
    let mut line = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program())
        .to_string_lossy()
        .into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
