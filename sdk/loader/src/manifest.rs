//! Manifests: what a plugin says of itself before its library is opened.

use crate::error::{Facts, LoadError};
use crate::kind::ComponentKind;
use crate::platform::KNOWN_PLATFORMS;
use crate::regular::read_regular;
use easytransfer_text::nearest;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The version of the manifest format that this loader reads.
const MANIFEST_VERSION: u32 = 1;
/// Bytes of the longest manifest that is read.
pub(crate) const LARGEST: u64 = 1 << 20;

/// One component that a manifest promises.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Provided {
    /// What it is.
    pub kind: ComponentKind,
    /// The name users write.
    pub name: String,
}

/// A manifest `<id>.toml`.
///
/// ```toml
/// manifest_version = 1
/// id = "loss-basic"
/// version = "0.1.0"
/// publisher = "EasyTransfer"          # optional, as are license and description
/// license = "Apache-2.0"
/// description = "The common losses"
///
/// [abi]
/// major = 0
/// minor = 1                           # the least that the plugin needs
/// requires = ["et.tensor/1", "et.nn/1"]
/// optional = []
///
/// [[provides]]
/// kind = "loss"
/// name = "cross-entropy"
///
/// [library]                           # relative to the manifest
/// linux_amd64 = "libloss_basic.so"
///
/// [sha256]                            # optional
/// linux_amd64 = "<64 hexadecimal digits>"
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginManifest {
    /// Where it was read from.
    pub path: PathBuf,
    /// Id of the plugin: lower-case letters, digits and '-'. The file is called `<id>.toml`.
    pub id: String,
    /// Version of the plugin.
    pub version: String,
    /// Who publishes it; may be empty.
    pub publisher: String,
    /// Its license as an SPDX expression; may be empty.
    pub license: String,
    /// One sentence; may be empty.
    pub description: String,
    /// Major version of the boundary.
    pub abi_major: u32,
    /// Least minor version of the boundary.
    pub abi_minor: u32,
    /// Interfaces of the host without which the plugin does not work.
    pub requires: Vec<String>,
    /// Interfaces of the host that the plugin uses where they exist.
    pub optional: Vec<String>,
    /// The components, sorted by kind and name.
    pub provides: Vec<Provided>,
    /// Library per platform tuple, relative to the manifest's folder.
    pub library: BTreeMap<String, PathBuf>,
    /// SHA-256 of the library per platform tuple, lower-case hexadecimal.
    pub sha256: BTreeMap<String, String>,
}

impl PluginManifest {
    /// Reads a manifest. Errors: `Path` when the file cannot be read, `PluginManifest` otherwise.
    pub fn read(path: &Path) -> Result<PluginManifest, LoadError> {
        let unreadable = |found: String| {
            LoadError::Path(Facts::boxed(
                stem(path),
                path,
                "cannot read the manifest",
                "a readable UTF-8 file",
                found,
                "check the path and its permissions",
            ))
        };
        let bytes = read_regular(path, LARGEST).map_err(|error| unreadable(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|error| unreadable(error.to_string()))?;
        PluginManifest::parse(&text, path)
    }

    /// Parses the text of a manifest; `path` is where it lies. Errors: `PluginManifest`, naming file, line and key.
    pub fn parse(text: &str, path: &Path) -> Result<PluginManifest, LoadError> {
        let reader = Reader { text, path };
        let document = DeTable::parse(text).map_err(|error| {
            reader.error(error.span(), "not TOML", "a TOML document", error.message())
        })?;
        let root = reader.table(document.get_ref(), "", document.span());
        root.only(&[
            "manifest_version",
            "id",
            "version",
            "publisher",
            "license",
            "description",
            "abi",
            "provides",
            "library",
            "sha256",
        ])?;
        let format = root.number("manifest_version")?;
        if format != MANIFEST_VERSION {
            return Err(root.wrong(
                "manifest_version",
                format!("{MANIFEST_VERSION}, the format that this loader reads"),
                format.to_string(),
            ));
        }
        let id = root.text("id")?;
        if !is_id(&id) {
            let found = format!("{id:?}");
            return Err(root.wrong("id", "lower-case letters, digits and '-'", found));
        }
        if stem(path) != id {
            let found = format!("id {id:?}");
            return Err(root.wrong("id", format!("{:?}, the file's name", stem(path)), found));
        }
        let abi = root.subtable("abi")?;
        abi.only(&["major", "minor", "requires", "optional"])?;
        Ok(PluginManifest {
            path: path.to_path_buf(),
            version: root.text("version")?,
            publisher: root.optional_text("publisher")?,
            license: root.optional_text("license")?,
            description: root.optional_text("description")?,
            abi_major: abi.number("major")?,
            abi_minor: abi.number("minor")?,
            requires: abi.texts("requires")?,
            optional: abi.texts("optional")?,
            provides: provides(&root)?,
            library: library(&root)?,
            sha256: hashes(&root)?,
            id,
        })
    }

    /// Path of the library for a platform tuple, or None if the manifest names none.
    pub fn library_path(&self, platform: &str) -> Option<PathBuf> {
        let relative = self.library.get(platform)?;
        Some(self.path.parent().unwrap_or(Path::new("")).join(relative))
    }
}

/// The file name without `.toml`.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

fn provides(root: &Table<'_>) -> Result<Vec<Provided>, LoadError> {
    let Some(value) = root.get("provides") else {
        return Ok(Vec::new());
    };
    let Some(entries) = value.get_ref().as_array() else {
        return Err(root.wrong("provides", "tables [[provides]]", value.get_ref().type_str()));
    };
    let mut all = Vec::new();
    for entry in entries.iter() {
        let Some(fields) = entry.get_ref().as_table() else {
            return Err(root.wrong("provides", "tables [[provides]]", entry.get_ref().type_str()));
        };
        let table = root.reader.table(fields, "provides", entry.span());
        table.only(&["kind", "name"])?;
        let word = table.text("kind")?;
        let Some(kind) = ComponentKind::from_name(&word) else {
            let names = ComponentKind::ALL.map(ComponentKind::name);
            let hint = nearest(&word, names).map_or(String::new(), |n| format!(", nearest {n:?}"));
            return Err(table.wrong("kind", one_of(&names), format!("{word:?}{hint}")));
        };
        let provided = Provided { kind, name: table.text("name")? };
        if all.contains(&provided) {
            let found = format!("{kind} {:?} twice", provided.name);
            return Err(table.wrong("name", "each component once", found));
        }
        all.push(provided);
    }
    all.sort();
    Ok(all)
}

fn library(root: &Table<'_>) -> Result<BTreeMap<String, PathBuf>, LoadError> {
    let table = root.subtable("library")?;
    table.only(&KNOWN_PLATFORMS)?;
    let mut paths = BTreeMap::new();
    for platform in table.keys() {
        let path = PathBuf::from(table.text(&platform)?);
        if path.has_root() || path.is_absolute() {
            let found = format!("{:?}", path.display().to_string());
            return Err(table.wrong(&platform, "a path relative to the manifest", found));
        }
        paths.insert(platform, path);
    }
    if paths.is_empty() {
        return Err(root.wrong("library", "at least one platform", "an empty table"));
    }
    Ok(paths)
}

fn hashes(root: &Table<'_>) -> Result<BTreeMap<String, String>, LoadError> {
    let mut hashes = BTreeMap::new();
    if root.get("sha256").is_none() {
        return Ok(hashes);
    }
    let table = root.subtable("sha256")?;
    table.only(&KNOWN_PLATFORMS)?;
    for platform in table.keys() {
        let hash = table.text(&platform)?.to_ascii_lowercase();
        if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
            let found = format!("{} characters {hash:?}", hash.chars().count());
            return Err(table.wrong(&platform, "64 hexadecimal digits", found));
        }
        hashes.insert(platform, hash);
    }
    Ok(hashes)
}

fn one_of(names: &[&str]) -> String {
    format!("one of {}", names.join(", "))
}

/// Text and path of the manifest being read, for messages.
#[derive(Clone, Copy)]
struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
}

impl<'a> Reader<'a> {
    fn table(self, fields: &'a DeTable<'a>, prefix: &'a str, span: Range<usize>) -> Table<'a> {
        Table { reader: self, fields, prefix, span }
    }

    fn error(
        self,
        span: Option<Range<usize>>,
        problem: &str,
        required: impl Into<String>,
        found: impl Into<String>,
    ) -> LoadError {
        let line = span.map_or(1, |span| {
            1 + self.text.bytes().take(span.start).filter(|&byte| byte == b'\n').count()
        });
        LoadError::PluginManifest(Facts::boxed(
            stem(self.path),
            self.path,
            format!("line {line}: {problem}"),
            required,
            found,
            format!("correct line {line} of the manifest"),
        ))
    }
}

/// A table of the document with the name it has in messages.
struct Table<'a> {
    reader: Reader<'a>,
    fields: &'a DeTable<'a>,
    prefix: &'a str,
    span: Range<usize>,
}

impl<'a> Table<'a> {
    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.fields.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    fn keys(&self) -> Vec<String> {
        self.fields.keys().map(|key| key.get_ref().to_string()).collect()
    }

    fn name_of(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}.{key}", self.prefix) }
    }

    /// The value of `key` is not what it must be.
    fn wrong(&self, key: &str, required: impl Into<String>, found: impl Into<String>) -> LoadError {
        let span = self.get(key).map_or(self.span.clone(), Spanned::span);
        let problem = format!("bad value of key `{}`", self.name_of(key));
        self.reader.error(Some(span), &problem, required, found)
    }

    fn missing(&self, key: &str, required: &str) -> LoadError {
        let problem = format!("missing key `{}`", self.name_of(key));
        self.reader.error(Some(self.span.clone()), &problem, required, "no such key")
    }

    /// Refuses keys that are not in `known`.
    fn only(&self, known: &[&str]) -> Result<(), LoadError> {
        for key in self.fields.keys() {
            let name = key.get_ref();
            if known.contains(&name.as_ref()) {
                continue;
            }
            let hint = match nearest(name, known.iter().copied()) {
                Some(near) => format!("; did you mean `{near}`?"),
                None => String::new(),
            };
            return Err(self.reader.error(
                Some(key.span()),
                &format!("unknown key `{}`", self.name_of(name)),
                one_of(known),
                format!("`{name}`{hint}"),
            ));
        }
        Ok(())
    }

    fn text(&self, key: &str) -> Result<String, LoadError> {
        let value = self.get(key).ok_or_else(|| self.missing(key, "a text that is not empty"))?;
        match value.get_ref().as_str() {
            Some("") => Err(self.wrong(key, "a text that is not empty", "an empty text")),
            Some(text) => Ok(text.to_owned()),
            None => Err(self.wrong(key, "a text", value.get_ref().type_str())),
        }
    }

    fn optional_text(&self, key: &str) -> Result<String, LoadError> {
        match self.get(key).map(Spanned::get_ref) {
            None => Ok(String::new()),
            Some(value) => match value.as_str() {
                Some(text) => Ok(text.to_owned()),
                None => Err(self.wrong(key, "a text", value.type_str())),
            },
        }
    }

    fn number(&self, key: &str) -> Result<u32, LoadError> {
        let required = "a whole number from 0 to 4294967295";
        let value = self.get(key).ok_or_else(|| self.missing(key, required))?;
        let Some(integer) = value.get_ref().as_integer() else {
            return Err(self.wrong(key, required, value.get_ref().type_str()));
        };
        u32::from_str_radix(integer.as_str(), integer.radix())
            .map_err(|_| self.wrong(key, required, integer.as_str()))
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, LoadError> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let required = "an array of texts";
        let Some(items) = value.get_ref().as_array() else {
            return Err(self.wrong(key, required, value.get_ref().type_str()));
        };
        items
            .iter()
            .map(|item| match item.get_ref().as_str() {
                Some(text) => Ok(text.to_owned()),
                None => Err(self.wrong(key, required, item.get_ref().type_str())),
            })
            .collect()
    }

    fn subtable(&self, key: &'a str) -> Result<Table<'a>, LoadError> {
        let value = self.get(key).ok_or_else(|| self.missing(key, "a table"))?;
        match value.get_ref().as_table() {
            Some(fields) => Ok(self.reader.table(fields, key, value.span())),
            None => Err(self.wrong(key, "a table", value.get_ref().type_str())),
        }
    }
}
