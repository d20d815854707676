//! The library of a plugin as a file: which symbols it exports, and which names its code may look for in options.
//! Layout: "ELF-64 Object File Format", version 1.5, sections "Sections" and "Symbol Table".

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::checks::Checks;
use crate::report::{failed, skipped};

const ENTRY: &str = "et_plugin_entry";

/// An ELF file of 64 bits and this machine's byte order, which the loader has looked at; what lies outside of the file
/// reads as nothing.
pub(crate) struct Library(Vec<u8>);

struct Section {
    kind: u64,
    flags: u64,
    begin: usize,
    len: usize,
    link: usize,
}

const SYMBOLS: u64 = 11;
const PROGRAM_DATA: u64 = 1;
const ALLOCATED: u64 = 2;
const EXECUTABLE: u64 = 4;

impl Library {
    /// Reads the file. None for one that is not ELF, such as a plugin that is linked in.
    pub fn open(path: &Path) -> Option<Library> {
        let bytes = fs::read(path).ok()?;
        bytes.starts_with(b"\x7fELF\x02").then_some(Library(bytes))
    }

    fn number(&self, at: usize, len: usize) -> u64 {
        let mut number = [0u8; 8];
        if let Some(bytes) = at.checked_add(len).and_then(|end| self.0.get(at..end)) {
            let place = if cfg!(target_endian = "little") { 0 } else { 8 - len };
            number[place..place + len].copy_from_slice(bytes);
        }
        u64::from_ne_bytes(number)
    }

    fn offset(&self, at: usize, len: usize) -> usize {
        usize::try_from(self.number(at, len)).unwrap_or(usize::MAX)
    }

    fn sections(&self) -> Vec<Section> {
        let (begin, size, count) = (self.offset(40, 8), self.offset(58, 2), self.offset(60, 2));
        let section = |at: usize| Section {
            kind: self.number(at + 4, 4),
            flags: self.number(at + 8, 8),
            begin: self.offset(at + 24, 8),
            len: self.offset(at + 32, 8),
            link: self.offset(at + 40, 4),
        };
        let end = begin.saturating_add(size.saturating_mul(count));
        if size < 64 || end > self.0.len() {
            return Vec::new();
        }
        (0..count).map(|at| section(begin + at * size)).collect()
    }

    fn content(&self, section: &Section) -> &[u8] {
        let end = section.begin.saturating_add(section.len);
        self.0.get(section.begin..end).unwrap_or_default()
    }

    /// Symbols that other libraries see. Left out are the linker's own, and those that C++ shares among libraries by
    /// its rules (templates, inline functions).
    pub fn exports(&self) -> Vec<String> {
        let sections = self.sections();
        let mut names = Vec::new();
        for symbols in sections.iter().filter(|section| section.kind == SYMBOLS) {
            let Some(strings) = sections.get(symbols.link) else { continue };
            let strings = self.content(strings);
            for at in (0..self.content(symbols).len() / 24).map(|at| symbols.begin + 24 * at) {
                let (name, info, other) =
                    (self.offset(at, 4), self.number(at + 4, 1), self.number(at + 5, 1));
                let (binding, visibility, section) = (info >> 4, other & 3, self.number(at + 6, 2));
                let is_visible = visibility == 0 || visibility == 3;
                if section == 0 || !is_visible || ![1, 2, 10].contains(&binding) {
                    continue;
                }
                let name = strings.get(name..).unwrap_or_default();
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                let name = String::from_utf8_lossy(name).into_owned();
                let is_linkers = name.starts_with("__")
                    || ["_init", "_fini", "_end", "_edata"].contains(&name.as_str());
                let is_shared = binding != 1 && name.starts_with("_Z");
                if !is_linkers && !is_shared {
                    names.push(name);
                }
            }
        }
        names
    }

    /// Names that stand in the data of the code by themselves or in quotes, as those of options do; not those of
    /// `known`. At most a few hundred.
    pub fn names(&self, known: &BTreeSet<String>) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for section in self.sections() {
            if section.kind != PROGRAM_DATA
                || section.flags & ALLOCATED == 0
                || section.flags & EXECUTABLE != 0
            {
                continue;
            }
            for piece in self.content(&section).split(|byte| *byte == 0) {
                let Ok(piece) = std::str::from_utf8(piece) else { continue };
                let parts = piece.split('"').chain([piece]);
                for name in parts.filter(|part| is_name(part) && !known.contains(*part)) {
                    if names.len() < 300 {
                        names.insert(name.to_owned());
                    }
                }
            }
        }
        names
    }

    /// How often the text stands in the file.
    pub fn count(&self, text: &str) -> usize {
        self.0.windows(text.len().max(1)).filter(|window| *window == text.as_bytes()).count()
    }
}

fn is_name(text: &str) -> bool {
    let begins = text.starts_with(|first: char| first.is_ascii_lowercase());
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    begins && (2..=32).contains(&text.len()) && text.chars().all(is_part)
}

pub fn check(library: Option<&Library>, checks: &mut Checks<'_>) {
    let promise = "exports one symbol, et_plugin_entry, so that no two plugins clash";
    checks.check(ENTRY, promise, || {
        let Some(library) = library else { return skipped("there is no ELF file") };
        let mut others = library.exports();
        // `export!` of the SDK also has an entry whose name has the plugin's id, for programs that link it.
        let is_entry = |name: &str| {
            name == ENTRY || name.strip_prefix(ENTRY).is_some_and(|id| id.starts_with('_'))
        };
        others.retain(|name| !is_entry(name));
        match others.len() {
            0 => Ok(()),
            _ => {
                others.truncate(8);
                let names = others.join(", ");
                failed(format!("{names} too; make them static or build with -fvisibility=hidden"))
            }
        }
    });
}
