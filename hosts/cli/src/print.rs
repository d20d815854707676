//! Text to standard output and standard error, where a reader that went away is no fault of the program.

use std::io::{Error as IoError, ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use easytransfer::{Error, Result};

/// Whether the program was started without a standard output (`>&-`).
static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Looks at standard output before the runtime of Rust does, which opens /dev/null in the place of what is closed.
extern "C" fn look() {
    // SAFETY: asks for the flags of a descriptor, whether it is open or not.
    IS_CLOSED.store(unsafe { libc::fcntl(1, libc::F_GETFD) } == -1, Ordering::Relaxed);
}

// SAFETY: functions of this section are called once before `main`, and this one needs nothing to be set up.
#[used]
#[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
#[cfg_attr(not(target_os = "macos"), unsafe(link_section = ".init_array"))]
static LOOK: extern "C" fn() = look;

/// Fails when there is no standard output. For commands that will write to it, before their work.
pub fn check() -> Result<()> {
    if IS_CLOSED.load(Ordering::Relaxed) {
        let closed = IoError::new(
            ErrorKind::NotConnected,
            "it is closed; send it to a file or to /dev/null",
        );
        return Err(Error::io("write", Path::new("standard output"), closed));
    }
    Ok(())
}

/// Whether an output of this name goes to standard output.
pub fn is_standard_output(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == Path::new(name))
}

/// Writes text to standard output. A closed pipe (`easytransfer … | head`) is ignored.
pub fn text(text: &str) -> Result<()> {
    check()?;
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
