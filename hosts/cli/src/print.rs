//! Text to standard output and standard error, where a reader that went away is no fault of the program.

use std::io::{ErrorKind, Write};
use std::path::Path;

use easytransfer::{Error, Result};

/// Writes text to standard output. A closed pipe (`easytransfer … | head`) is ignored.
pub fn text(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::io("write", Path::new("standard output"), error))
        }
        _ => Ok(()),
    }
}

/// Writes a message for the user to standard error.
pub fn message(text: &str) {
    // A closed standard error is no reason to fail: the exit code tells.
    let _ = writeln!(std::io::stderr(), "easytransfer: {text}");
}
