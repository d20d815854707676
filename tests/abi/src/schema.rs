//! Reads the tables from the source of `sdk/abi`: names, signatures and documentation, which the compiled crate no
//! longer has.
//!
//! The source is formatted by rustfmt, and this relies on it: an item starts and ends in column 0, a field starts with
//! four spaces and `pub`, and ends with a comma outside all brackets.

use std::{fs, io, path::Path};

/// One `repr(C)` struct.
pub struct Table {
    /// C name.
    pub name: String,
    /// Documentation, one line.
    pub doc: String,
    /// Fields in order.
    pub fields: Vec<Field>,
}

/// One field of a table.
pub struct Field {
    /// C name.
    pub name: String,
    /// Documentation, one line.
    pub doc: String,
    /// Rust type with all white space normalised.
    pub signature: String,
}

impl Field {
    /// True if the field is a function pointer.
    pub fn is_slot(&self) -> bool {
        self.signature.contains("fn(")
    }
}

/// All tables of the files in a folder, by file name and place; opaque types are left out.
pub fn read(folder: &Path) -> io::Result<Vec<Table>> {
    let mut files: Vec<_> = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    let mut tables = Vec::new();
    for file in files {
        tables.extend(parse(&fs::read_to_string(file)?));
    }
    Ok(tables)
}

/// All tables of a source text.
pub fn parse(source: &str) -> Vec<Table> {
    let mut tables = Vec::new();
    let mut doc = String::new();
    let mut table: Option<Table> = None;
    let mut field = String::new();
    for line in source.lines() {
        let text = line.trim();
        if let Some(words) = text.strip_prefix("///") {
            doc.push_str(words);
        } else if let Some(open) = table.as_mut() {
            if line == "}" {
                tables.extend(table.take());
                doc.clear();
            } else if !field.is_empty() || text.starts_with("pub ") {
                field.push(' ');
                field.push_str(text);
                if is_complete(&field) {
                    open.fields.extend(parse_field(&field, &doc));
                    field.clear();
                    doc.clear();
                }
            }
        } else if let Some(rest) = line.strip_prefix("pub struct ") {
            let name = rest.trim_end_matches([' ', '{']).to_owned();
            table = Some(Table { name, doc: one_line(&doc), fields: Vec::new() });
            doc.clear();
        } else if !text.starts_with("#[") {
            doc.clear();
        }
    }
    tables.retain(|table| !table.fields.is_empty());
    tables
}

fn is_complete(field: &str) -> bool {
    let depth = field.replace("->", "").chars().fold(0, |depth, character| match character {
        '(' | '<' | '[' => depth + 1,
        ')' | '>' | ']' => depth - 1,
        _ => depth,
    });
    depth == 0 && field.ends_with(',')
}

fn parse_field(text: &str, doc: &str) -> Option<Field> {
    let (name, signature) = text.trim().strip_prefix("pub ")?.split_once(':')?;
    let signature = one_line(signature.trim().trim_end_matches(','))
        .replace("( ", "(")
        .replace(", )", ")")
        .replace(",)", ")")
        .replace("< ", "<")
        .replace(", >", ">")
        .replace(" >,", ">,")
        .replace("crate::", "");
    Some(Field { name: name.trim().to_owned(), doc: one_line(doc), signature })
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
