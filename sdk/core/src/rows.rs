//! The features of one record, and batches without padding.

use std::sync::Mutex;

use easytransfer_abi::{et_row, et_rows};

use crate::data::Map;
use crate::error::{Result, fail};
use crate::handle::{self, Handle, tag};
use crate::storage::{Element, tensor_from_vec};
use crate::sync::lock;
use crate::tensor::Tensor;

/// The features of one record before batching.
#[derive(Debug, Default)]
pub struct Row(Mutex<Vec<(String, Field)>>);

impl Handle for Row {
    type Abi = et_row;
    const TAG: u32 = tag(b"ETrw");
    const NAME: &'static str = "row";
}

/// The values of one field of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// One integer per token.
    Tokens(Vec<i64>),
    /// Integers of the row.
    I64(Vec<i64>),
    /// Numbers of the row.
    F32(Vec<f32>),
}

impl Field {
    fn len(&self) -> usize {
        match self {
            Self::Tokens(values) | Self::I64(values) => values.len(),
            Self::F32(values) => values.len(),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Tokens(_) => "token",
            Self::I64(_) => "integer",
            Self::F32(_) => "number",
        }
    }
}

/// The text up to and including the last '/', the name space of a field.
fn space(name: &str) -> &str {
    name.rfind('/').map_or("", |at| &name[..=at])
}

/// Checks that `name` can be added to `fields`.
fn check(fields: &[(String, Field)], name: &str, field: &Field) -> Result<()> {
    if name.is_empty() {
        fail!(ET_ERR_INVALID_ARGUMENT, "a field of a row needs a name");
    }
    if let Some((_, old)) = fields.iter().find(|(found, _)| found == name) {
        fail!(ET_ERR_ALREADY_EXISTS, "the row has a {} field {name:?} already", old.kind());
    }
    if let Field::Tokens(values) = field {
        let other = fields.iter().find(|(found, field)| {
            matches!(field, Field::Tokens(_)) && space(found) == space(name)
        });
        if let Some((other, field)) = other
            && field.len() != values.len()
        {
            fail!(
                ET_ERR_SHAPE,
                "token field {name:?} has {} values, but {other:?} of the same name space has {}",
                values.len(),
                field.len()
            );
        }
    }
    Ok(())
}

impl Row {
    /// An empty row.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field. Errors: `ALREADY_EXISTS`, `SHAPE` when token fields of one name space differ in length.
    pub fn put(&self, name: &str, field: Field) -> Result<()> {
        let mut fields = lock(&self.0);
        check(&fields, name, &field)?;
        fields.push((name.into(), field));
        Ok(())
    }

    /// Number of tokens: the sum over the name spaces, within each of which all token fields have one length.
    pub fn tokens_len(&self) -> usize {
        let fields = lock(&self.0);
        let mut spaces: Vec<(&str, usize)> = Vec::new();
        for (name, field) in fields.iter().filter(|(_, f)| matches!(f, Field::Tokens(_))) {
            if !spaces.iter().any(|(known, _)| *known == space(name)) {
                spaces.push((space(name), field.len()));
            }
        }
        spaces.iter().map(|(_, len)| len).sum()
    }

    /// Copies all fields of `source` under `prefix` + name; nothing changes on error. Errors as for [`Row::put`].
    pub fn merge(&self, prefix: &str, source: &Row) -> Result<()> {
        // A copy, so that a row can be merged into itself.
        let mut merged = lock(&self.0).clone();
        let added = lock(&source.0).clone();
        for (name, field) in added {
            let name = format!("{prefix}{name}");
            check(&merged, &name, &field)?;
            merged.push((name, field));
        }
        *lock(&self.0) = merged;
        Ok(())
    }
}

/// The rows that the features of one record become. Rows stay where they are while the list grows.
#[derive(Debug, Default)]
pub struct Rows(Mutex<Vec<Owned>>);

impl Handle for Rows {
    type Abi = et_rows;
    const TAG: u32 = tag(b"ETrs");
    const NAME: &'static str = "list of rows";
}

/// One reference to a row, kept so that an app which releases what it was lent harms itself alone.
#[derive(Debug)]
struct Owned(*mut et_row);

// SAFETY: the handle of a row may be used and released on any thread.
unsafe impl Send for Owned {}
// SAFETY: as above; rows lock themselves.
unsafe impl Sync for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the reference is this one's, and it is given up once; `Rows::add` kept it.
        unsafe {
            handle::release::<Row>(self.0);
            handle::let_go::<Row>(self.0);
        }
    }
}

impl Rows {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an empty row; the handle is the list's.
    pub fn add(&self) -> *mut et_row {
        let row = handle::into_raw(Row::new());
        // SAFETY: the handle is new; `Owned` lets go of it.
        unsafe { handle::keep::<Row>(row) };
        lock(&self.0).push(Owned(row));
        row
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An owned reference to a row. Errors: `NOT_FOUND`; `BAD_HANDLE` for one that a borrower has released.
    pub fn get(&self, index: usize) -> Result<*mut et_row> {
        let rows = lock(&self.0);
        match rows.get(index) {
            // SAFETY: the list has kept the row, so its memory is readable.
            Some(row) => unsafe {
                handle::borrow::<Row>(row.0)
                    .map_err(|error| error.context(format!("row {index} of the list")))?;
                Ok(handle::retain::<Row>(row.0))
            },
            None => fail!(ET_ERR_NOT_FOUND, "there is no row {index}, the list has {}", rows.len()),
        }
    }
}

/// Joins the values of one field of all rows; `read` gives `None` for a field of another kind.
fn join<T: Element>(
    rows: &[&[(String, Field)]],
    name: &str,
    first: &Field,
    same_len: bool,
    read: impl Fn(&Field) -> Option<&[T]>,
) -> Result<(Vec<T>, Vec<i64>)> {
    let mut values = Vec::new();
    let mut starts = vec![0i64];
    for (index, row) in rows.iter().enumerate() {
        let Some((_, field)) = row.iter().find(|(found, _)| found == name) else {
            fail!(ET_ERR_SHAPE, "row {index} has no field {name:?}, but row 0 has");
        };
        let Some(part) = read(field) else {
            fail!(
                ET_ERR_SHAPE,
                "field {name:?} of row {index} is a {} field, but that of row 0 is a {} field",
                field.kind(),
                first.kind()
            );
        };
        if same_len && part.len() != first.len() {
            fail!(
                ET_ERR_SHAPE,
                "field {name:?} of row {index} has {} values, but that of row 0 has {}",
                part.len(),
                first.len()
            );
        }
        values.extend_from_slice(part);
        starts.push(values.len() as i64);
    }
    Ok((values, starts))
}

/// A tensor of one value or several values per row: [B] or [B, len].
fn per_row<T: Element>(values: Vec<T>, rows: usize, len: usize) -> Result<Tensor> {
    let shape = if len == 1 { vec![rows] } else { vec![rows, len] };
    Ok(Tensor::new(tensor_from_vec(values, shape)?))
}

/// Collates rows into a batch without padding: token fields are laid end to end `[T]`, others become `[B]` or [B, len],
/// and each name space with token fields gets "starts" [B + 1] and "positions" `[T]` unless a field of that name
/// exists.
///
/// # Errors
/// `INVALID_ARGUMENT` without rows, `SHAPE` when the rows' fields differ, naming the field and the row.
pub fn collate(rows: &[&Row]) -> Result<Map> {
    let guards: Vec<_> = rows.iter().map(|row| lock(&row.0).clone()).collect();
    let rows: Vec<&[(String, Field)]> = guards.iter().map(Vec::as_slice).collect();
    let Some(first) = rows.first() else {
        fail!(ET_ERR_INVALID_ARGUMENT, "a batch needs at least one row");
    };
    for (index, row) in rows.iter().enumerate() {
        let extra = row.iter().find(|(name, _)| !first.iter().any(|(found, _)| found == name));
        if let Some((name, _)) = extra {
            fail!(ET_ERR_SHAPE, "row {index} has a field {name:?}, but row 0 has not");
        }
    }
    let batch = Map::new();
    let mut spaces: Vec<(&str, Vec<i64>, &str)> = Vec::new();
    for (name, field) in first.iter() {
        let tensor = match field {
            Field::Tokens(_) => {
                let (values, starts) = join(&rows, name, field, false, |field| match field {
                    Field::Tokens(values) => Some(values),
                    _ => None,
                })?;
                match spaces.iter().find(|(found, ..)| *found == space(name)) {
                    None => spaces.push((space(name), starts, name)),
                    // `put` has checked each row, so this finds rows that nothing checked.
                    Some((_, known, other)) if *known != starts => {
                        fail!(ET_ERR_SHAPE, "token fields {name:?} and {other:?} differ in length")
                    }
                    Some(_) => {}
                }
                let len = values.len();
                Tensor::new(tensor_from_vec(values, len)?)
            }
            Field::I64(_) => {
                let (values, _) = join(&rows, name, field, true, |field| match field {
                    Field::I64(values) => Some(values),
                    _ => None,
                })?;
                per_row(values, rows.len(), field.len())?
            }
            Field::F32(_) => {
                let (values, _) = join(&rows, name, field, true, |field| match field {
                    Field::F32(values) => Some(values),
                    _ => None,
                })?;
                per_row(values, rows.len(), field.len())?
            }
        };
        batch.put(name, tensor);
    }
    for (space, starts, _) in spaces {
        let positions_name = format!("{space}positions");
        if !batch.has(&positions_name) {
            let runs = starts.windows(2).map(|pair| pair[1] - pair[0]);
            let positions: Vec<i64> = runs.flat_map(|len| 0..len).collect();
            let len = positions.len();
            batch.put(&positions_name, Tensor::new(tensor_from_vec(positions, len)?));
        }
        let starts_name = format!("{space}starts");
        if !batch.has(&starts_name) {
            let len = starts.len();
            batch.put(&starts_name, Tensor::new(tensor_from_vec(starts, len)?));
        }
    }
    Ok(batch)
}
