//! The rows of JSON files, whose columns are known for sure at their end only.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Fault, Header, Reader, Row, header, json};
use crate::error::{DataError, IN_MEMORY, Result};

/// How many of the first objects of a JSON file, and how many bytes of them, say which columns it has before the
/// first is handed out.
const LOOKAHEAD: usize = 256;
const LOOKAHEAD_BYTES: usize = 1 << 20;

impl Reader {
    /// Reads the first objects of a JSON file and collects their keys in order of appearance.
    pub(super) fn look_ahead(&mut self) -> Result<Vec<String>> {
        self.is_whole = false;
        let mut columns: Vec<String> = Vec::new();
        let mut first_fault = None;
        let (mut bytes, mut objects) = (0, 0);
        let mut only: Option<Vec<String>> = None;
        while self.ahead.len() < LOOKAHEAD && (bytes < LOOKAHEAD_BYTES || objects < 2) {
            let mut text = Vec::new();
            let line = match json::next_text(&mut self.source, &mut self.layout, &mut text) {
                Ok(Some(line)) => line,
                Ok(None) => {
                    self.is_whole = true;
                    let is_file = self.source.path().as_os_str() != IN_MEMORY;
                    if let (1, Some(keys), true) = (objects, &only, is_file) {
                        return Err(header::columns_object(&self.source, keys).into());
                    }
                    break;
                }
                Err(fault) if self.ahead.is_empty() => return Err(fault.into_error()),
                // The objects before it come first.
                Err(fault) => {
                    self.behind = Some(fault.into_error());
                    break;
                }
            };
            bytes += text.len();
            match json::object(&self.source, self.layout, &text, line) {
                Ok(entries) => {
                    objects += 1;
                    only = header::are_columns(entries.clone());
                    for name in entries.filter_map(|(key, _)| json::name(key)) {
                        if !self.places.contains_key(&*name) {
                            self.places.insert(name.to_string(), columns.len());
                            columns.push(name.into_owned());
                        }
                    }
                }
                Err(fault) => drop(first_fault.get_or_insert(fault)),
            }
            self.ahead.push_back((line, text));
        }
        if columns.is_empty() {
            // Without a single usable object the first fault says more than "no columns".
            if let Some(fault) = first_fault {
                return Err(fault.into_error());
            }
            return Err(DataError::new(self.source.path())
                .expected("JSON objects with at least one key")
                .found("none")
                .remedy("give one object per line, such as {\"text\": \"...\"}")
                .into());
        }
        Ok(columns)
    }

    /// The next object's cells.
    pub(super) fn next_object(&mut self) -> std::result::Result<Option<Row>, Fault> {
        let line = match self.ahead.pop_front() {
            Some((line, text)) => {
                self.line = text;
                line
            }
            None => {
                if let Some(error) = self.behind.take() {
                    return Err(Fault::Fatal(error));
                }
                let next = json::next_text(&mut self.source, &mut self.layout, &mut self.line);
                let Some(line) = next? else {
                    self.know_all()?;
                    return Ok(None);
                };
                line
            }
        };
        loop {
            let mut cells = vec![None; self.picked.len()];
            let mut late: Vec<String> = Vec::new();
            for (key, text) in json::object(&self.source, self.layout, &self.line, line)? {
                // A key that is no text is none that somebody asked for.
                let Some(name) = json::name(key) else { continue };
                let Some(&place) = self.places.get(&*name) else {
                    let matters = |names: &HashSet<String>| names.contains(&name.to_lowercase());
                    if self.interesting.as_ref().is_none_or(matters) {
                        late.push(name.into_owned());
                    }
                    continue;
                };
                for &slot in self.slots(Some(place)) {
                    let fault = || DataError::new(self.source.path()).line(line).column(&*name);
                    if cells[slot].is_some() {
                        let error = fault().expected("a key once in an object").found("it twice");
                        return Err(Fault::Row(error.into()));
                    }
                    let as_text = self.texts.get(slot) == Some(&true);
                    let value = json::value(text, as_text).map_err(|message| {
                        Fault::Row(fault().expected("a JSON value").found(message).into())
                    })?;
                    cells[slot] = Some(value).filter(|value| !value.is_null());
                }
            }
            if late.is_empty() {
                return Ok(Some((line, cells)));
            }
            late.sort_unstable();
            late.dedup();
            self.grow(late).map_err(|error| Fault::Fatal(error.at_line(line)))?;
        }
    }

    /// Takes up columns that appear late in a JSON file.
    fn grow(&mut self, names: Vec<String>) -> Result<()> {
        let mut columns = self.columns.columns().to_vec();
        self.check_columns(columns.len() + names.len())?;
        for name in names {
            self.places.insert(name.clone(), columns.len());
            columns.push(name);
        }
        self.columns = Arc::new(Header::new(self.source.path(), columns));
        match &mut self.choose {
            Some(choose) => {
                self.picked = choose(&self.columns, false)?;
                self.name_picked();
            }
            None => self.pick_all(),
        }
        Ok(())
    }

    /// At the end of a JSON file: what was chosen so far is chosen for good. Errors: a column that was named has
    /// never come.
    fn know_all(&mut self) -> std::result::Result<(), Fault> {
        if !std::mem::replace(&mut self.is_whole, true)
            && let Some(choose) = &mut self.choose
        {
            choose(&self.columns, true).map_err(Fault::Fatal)?;
        }
        Ok(())
    }
}
