//! A look at an ELF file before it is opened. The dynamic linker maps segments without asking whether the file is long
//! enough, so a truncated library would end the process with SIGBUS; and its message about a wrong processor is terse.

/// What is wrong with a file that should be a shared library.
pub(crate) struct BadElf {
    pub required: &'static str,
    pub found: String,
    pub remedy: &'static str,
}

const REBUILD: &str = "give the path of the plugin's shared library in [library]";
const COPY_AGAIN: &str = "copy or install the library again";

/// Checks header, processor, kind and that every part the header speaks of lies inside the file. Layout: "ELF-64
/// Object File Format", version 1.5, sections "ELF Header" and "Program Header".
pub(crate) fn check(bytes: &[u8]) -> Result<(), BadElf> {
    let bad = |required, found: String, remedy| Err(BadElf { required, found, remedy });
    if !bytes.starts_with(b"\x7fELF") {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(8)]).into_owned();
        let found = format!("a file of {} bytes that begins with {start:?}", bytes.len());
        return bad("a shared library (ELF)", found, REBUILD);
    }
    let file = Bytes(bytes);
    let truncated = |part: &str, end: u64| BadElf {
        required: "a complete shared library",
        found: format!("a truncated file: {part} ends at byte {end}, the file at {}", bytes.len()),
        remedy: COPY_AGAIN,
    };
    if bytes.len() < 64 {
        return Err(truncated("the header", 64));
    }
    let (class, endian) = (bytes[4], bytes[5]);
    let native_endian = if cfg!(target_endian = "little") { 1 } else { 2 };
    if class != 2 || endian != native_endian {
        let found = format!("class {class}, byte order {endian}");
        return bad("a 64-bit library of this machine's byte order", found, REBUILD);
    }
    let (kind, machine) = (file.number(16, 2), file.number(18, 2));
    if kind != 3 {
        return bad("a shared library (ELF type 3)", format!("ELF type {kind}"), REBUILD);
    }
    let native_machine = match std::env::consts::ARCH {
        "x86_64" => Some(62),
        "aarch64" => Some(183),
        _ => None,
    };
    if native_machine.is_some_and(|native| native != machine) {
        let found = format!("a library for ELF machine {machine}");
        return bad("a library for this processor", found, REBUILD);
    }
    let (headers, header_size, header_count) =
        (file.number(32, 8), file.number(54, 2), file.number(56, 2));
    let (sections, section_size, section_count) =
        (file.number(40, 8), file.number(58, 2), file.number(60, 2));
    let len = bytes.len() as u64;
    let tables = [
        ("the program header table", headers, header_size * header_count),
        ("the section header table", sections, section_size * section_count),
    ];
    for (part, start, size) in tables {
        let end = start.saturating_add(size);
        if end > len {
            return Err(truncated(part, end));
        }
    }
    if header_size != 56 || header_count == 0 {
        let found = format!("{header_count} program headers of {header_size} bytes");
        return bad("program headers of 56 bytes", found, COPY_AGAIN);
    }
    for index in 0..header_count {
        // Inside the file: the whole table was found to end before `len`.
        let at = (headers + index * header_size) as usize;
        let end = file.number(at + 8, 8).saturating_add(file.number(at + 32, 8));
        if end > len {
            return Err(truncated("a segment", end));
        }
    }
    Ok(())
}

/// The file's bytes, read as numbers in native byte order, which was checked to be the file's.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    /// The unsigned number of `size` bytes (2 or 8) at `at`; the caller knows that it lies inside.
    fn number(&self, at: usize, size: usize) -> u64 {
        let mut number = [0u8; 8];
        let place = if cfg!(target_endian = "little") { 0 } else { 8 - size };
        number[place..place + size].copy_from_slice(&self.0[at..at + size]);
        u64::from_ne_bytes(number)
    }
}
