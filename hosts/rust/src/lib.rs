//! What the four programs share: how errors end a program, how texts are read and how numbers are written.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use easytransfer::{Error, Result};

/// The content of a file; `-` is standard input.
pub fn read_file(path: &str) -> Result<String> {
    let mut text = String::new();
    let read = if path == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => {
            Error::user(format!("read `{path}`: expected UTF-8, found other bytes"))
        }
        _ => Error::io("read", Path::new(path), error),
    })?;
    Ok(text)
}

/// Nine digits, from which the same single precision number can be read back. All languages write numbers so: as
/// `%.8e` in C.
pub fn number(value: f64) -> String {
    let text = format!("{value:.8e}");
    match text.split_once('e') {
        // C writes the exponent with a sign and two digits at least.
        Some((digits, exponent)) => {
            let (sign, exponent) =
                exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

/// Runs a program: code 2 when bad input is the cause of an error, 1 otherwise. `least` to `most` arguments are taken.
pub fn run(
    arguments: Vec<String>,
    least: usize,
    most: usize,
    usage: &str,
    body: impl FnOnce(&[String]) -> Result<()>,
) -> ExitCode {
    if arguments.len() < least || arguments.len() > most {
        eprintln!("usage: {usage}");
        return ExitCode::from(2);
    }
    if let Err(error) = body(&arguments) {
        eprintln!("error: {error:#}");
        return ExitCode::from(if error.is_user_error() { 2 } else { 1 });
    }
    match easytransfer::live_handles() {
        0 => ExitCode::SUCCESS,
        left => {
            eprintln!("error: {left} handles were not given back");
            ExitCode::FAILURE
        }
    }
}

/// The arguments of the program.
pub fn arguments() -> Vec<String> {
    std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn number_is_written_as_c_writes_it() {
        assert_eq!(number(0.15), "1.50000000e-01");
        assert_eq!(number(-123456.789), "-1.23456789e+05");
        assert_eq!(number(0.0), "0.00000000e+00");
        assert_eq!(number(1e-300), "1.00000000e-300");
        assert_eq!(number(f64::from(f32::from_bits(0x3dcc_cccd))), "1.00000001e-01");
    }
}
