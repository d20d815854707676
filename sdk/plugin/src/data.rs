//! Maps of named tensors, rows of features and buffers.

use crate::host::{ask, call, handle, lent_mut, never_lent_mut, tables};
use crate::text::{borrow, to_string_lossy};
use crate::{Error, LentMut, Result, Tensor};
use easytransfer_abi as abi;
use std::ptr::{null, null_mut};

handle! {
    /// Named tensors in insertion order: a batch, the outputs of a model, the state of an optimizer.
    Map(et_map) released by data, et_host_data.map_release
}
lent_mut! { Map(et_map) }

impl Map {
    /// An empty map.
    pub fn new() -> Result<Self> {
        let mut out = null_mut();
        call!(tables().data, et_host_data.map_new(&mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Self::from_raw(out) }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        ask!(tables().data, et_host_data.map_len(self.as_raw()) or 0)
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names in insertion order.
    pub fn names(&self) -> Vec<String> {
        let empty = abi::et_str { ptr: null(), len: 0 };
        (0..self.len())
            .map(|index| {
                let name =
                    ask!(tables().data, et_host_data.map_name(self.as_raw(), index) or empty);
                // SAFETY: the name is valid until the map changes, and it is copied here.
                unsafe { to_string_lossy(name) }
            })
            .collect()
    }

    /// The tensor of that name. Errors with `ET_ERR_NOT_FOUND`, naming the entries that exist.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let mut out = null_mut();
        call!(tables().data, et_host_data.map_get(self.as_raw(), borrow(name), &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Tensor::from_raw(out) }
    }

    /// The tensor of that name, if it is there.
    pub fn find(&self, name: &str) -> Result<Option<Tensor>> {
        if self.has(name) { self.get(name).map(Some) } else { Ok(None) }
    }

    /// Whether there is an entry of that name.
    pub fn has(&self, name: &str) -> bool {
        ask!(tables().data, et_host_data.map_has(self.as_raw(), borrow(name)) or 0) != 0
    }

    /// Adds or replaces an entry.
    pub fn put(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        call!(tables().data, et_host_data.map_put(self.as_raw(), borrow(name), tensor.as_raw()))
    }

    /// Removes an entry if it is there.
    pub fn remove(&mut self, name: &str) {
        ask!(tables().data, et_host_data.map_remove(self.as_raw(), borrow(name)) or ());
    }

    /// A batch of rows without padding: token fields end to end with "starts" and "positions", other fields stacked.
    pub fn from_rows(rows: &[&Row]) -> Result<Self> {
        let raw: Vec<*const abi::et_row> = rows.iter().map(|r| r.as_raw().cast_const()).collect();
        let mut out = null_mut();
        call!(tables().data, et_host_data.batch_from_rows(raw.as_ptr(), raw.len(), &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Self::from_raw(out) }
    }

    /// The entries below `prefix` (for instance "teacher/") as a map of their own, without it.
    pub fn below(&self, prefix: &str) -> Result<Self> {
        let mut map = Self::new()?;
        for name in self.names() {
            if let Some(rest) = name.strip_prefix(prefix) {
                map.put(rest, &self.get(&name)?)?;
            }
        }
        Ok(map)
    }
}

handle! {
    /// The features of one record before batching.
    Row(et_row) released by data, et_host_data.row_release
}
lent_mut! { Row(et_row) }

impl Row {
    /// An empty row.
    pub fn new() -> Result<Self> {
        let mut out = null_mut();
        call!(tables().data, et_host_data.row_new(&mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Self::from_raw(out) }
    }

    /// Adds a field with one value per token.
    pub fn put_tokens(&mut self, name: &str, values: &[i64]) -> Result<()> {
        call!(
            tables().data,
            et_host_data.row_put_tokens(self.as_raw(), borrow(name), values.as_ptr(), values.len())
        )
    }

    /// Adds a field of integers per row.
    pub fn put_i64(&mut self, name: &str, values: &[i64]) -> Result<()> {
        call!(
            tables().data,
            et_host_data.row_put_i64(self.as_raw(), borrow(name), values.as_ptr(), values.len())
        )
    }

    /// Adds a field of single precision numbers per row.
    pub fn put_f32(&mut self, name: &str, values: &[f32]) -> Result<()> {
        call!(
            tables().data,
            et_host_data.row_put_f32(self.as_raw(), borrow(name), values.as_ptr(), values.len())
        )
    }

    /// Number of tokens: the sum over the name spaces.
    pub fn tokens_len(&self) -> usize {
        ask!(tables().data, et_host_data.row_tokens_len(self.as_raw()) or 0)
    }

    /// Copies every field of `source` under `prefix` + name.
    pub fn merge(&mut self, prefix: &str, source: &Row) -> Result<()> {
        call!(tables().data, et_host_data.row_merge(self.as_raw(), borrow(prefix), source.as_raw()))
    }
}

handle! {
    /// The rows that the features of one record become.
    Rows(et_rows) released by data, et_host_data.rows_release
}
lent_mut! { Rows(et_rows) }

impl Rows {
    /// An empty list.
    pub fn new() -> Result<Self> {
        let mut out = null_mut();
        call!(tables().data, et_host_data.rows_new(&mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Self::from_raw(out) }
    }

    /// Adds an empty row.
    pub fn add(&mut self) -> Result<LentMut<'_, Row>> {
        let mut out = null_mut();
        call!(tables().data, et_host_data.rows_add(self.as_raw(), &mut out))?;
        // SAFETY: the row lives as long as the list.
        unsafe { Row::lend_mut(out) }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        ask!(tables().data, et_host_data.rows_len(self.as_raw()) or 0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row `index`.
    pub fn get(&self, index: usize) -> Result<Row> {
        let mut out = null_mut();
        call!(tables().data, et_host_data.rows_get(self.as_raw(), index, &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Row::from_raw(out) }
    }

    /// All rows in their order.
    pub fn to_vec(&self) -> Result<Vec<Row>> {
        (0..self.len()).map(|index| self.get(index)).collect()
    }
}

handle! {
    /// Bytes owned by the host, possibly the content of a file.
    Buffer(et_buffer) released by data, et_host_data.buffer_release
}
never_lent_mut! { Buffer(et_buffer) }

impl Buffer {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let mut out = null_mut();
        call!(
            tables().data,
            et_host_data.buffer_new(bytes.as_ptr().cast(), bytes.len(), &mut out)
        )?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Self::from_raw(out) }
    }

    /// The bytes of a regular file, which is read whole; what becomes of it later does not change them.
    pub fn map_file(path: &str) -> Result<Self> {
        let mut out = null_mut();
        call!(tables().data, et_host_data.buffer_map_file(borrow(path), &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Self::from_raw(out) }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        let data = ask!(tables().data, et_host_data.buffer_data(self.as_raw()) or null());
        let size = ask!(tables().data, et_host_data.buffer_size(self.as_raw()) or 0);
        if data.is_null() || size == 0 {
            return &[];
        }
        // SAFETY: the host keeps `size` bytes alive and unchanged as long as the buffer.
        unsafe { std::slice::from_raw_parts(data.cast(), size) }
    }

    /// The bytes as text. Errors when they are not UTF-8.
    pub fn as_str(&self) -> Result<&str> {
        std::str::from_utf8(self.as_slice())
            .map_err(|error| Error::bad_input(format!("text is not UTF-8: {error}")))
    }
}
