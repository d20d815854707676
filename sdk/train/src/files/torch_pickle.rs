//! `pytorch_model.bin` as `torch.save` writes it, read without executing anything. Since PyTorch 1.6 it is a zip
//! archive with `data.pkl`, a pickle that describes the tensors, and one entry of raw bytes per storage; before, it
//! was pickles end to end with the storages' bytes behind them (`legacy`).

mod legacy;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{Result, WeightError, excerpt};
use crate::files::dtype::WeightType;
use crate::files::pickle::{self, Heap, Item, TensorView};
use crate::files::zip;

const CONVERT: &str = "load it in Python with `torch.load(..., weights_only=True)` and save it again with \
                       `torch.save` or as safetensors";

/// One tensor of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct TorchTensor {
    /// Its key in the dictionary.
    pub name: String,
    /// The type of its elements.
    pub dtype: WeightType,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How many elements of the storage lie between neighbours along each dimension.
    pub strides: Vec<usize>,
    /// The key of its storage; tied tensors share one.
    pub storage: String,
    /// Its first element in the storage.
    pub offset: usize,
    /// The storage's bytes in the file.
    range: Range<usize>,
}

impl TorchTensor {
    /// Whether the elements lie one after the other, so that the bytes can be borrowed.
    pub fn is_contiguous(&self) -> bool {
        if self.shape.contains(&0) {
            return true;
        }
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&length, &stride)| {
            let fits = length <= 1 || stride == expected;
            // Bounded by the storage's size, which was checked.
            expected *= length.max(1);
            fits
        })
    }
}

/// A checked file of tensors.
#[derive(Debug)]
pub struct TorchFile<'a> {
    path: PathBuf,
    bytes: &'a [u8],
    /// The tensors in the dictionary's order.
    pub tensors: Vec<TorchTensor>,
}

impl<'a> TorchFile<'a> {
    /// Reads the dictionary of the whole file `bytes`, which messages call `path`; a dictionary under the key
    /// `state_dict`, `model_state_dict` or `model` is found too. Errors: TorchScript, a pickle that wants more than
    /// tensors (the global is named), views that leave their storage, missing storages.
    pub fn parse(path: &Path, bytes: &'a [u8]) -> Result<TorchFile<'a>> {
        let (heap, places) = if bytes.starts_with(legacy::MAGIC) {
            legacy::read(path, bytes)?
        } else {
            read_archive(path, bytes)?
        };
        let mut tensors: Vec<TorchTensor> = Vec::new();
        let mut known: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, view) in named_tensors(&heap) {
            let tensor = check(path, name, view, places.get(&*view.storage.key))?;
            // As in Python, a later item of the same key replaces the earlier one.
            match known.get(name) {
                Some(&place) => tensors[place] = tensor,
                None => {
                    known.insert(name, tensors.len());
                    tensors.push(tensor);
                }
            }
        }
        if tensors.is_empty() {
            let found = "no tensor in it";
            return Err(WeightError::new(path, "a dictionary of tensors", found, CONVERT).into());
        }
        Ok(TorchFile { path: path.to_path_buf(), bytes, tensors })
    }

    /// The tensor's elements one after the other, little-endian: borrowed if they lie so, copied otherwise. `tensor`
    /// must be one of this file. Errors: a view with more elements than its storage (an expanded tensor).
    pub fn bytes(&self, tensor: &TorchTensor) -> Result<Cow<'a, [u8]>> {
        let size = tensor.dtype.size();
        let empty = tensor.shape.contains(&0);
        let count: usize = if empty { 0 } else { tensor.shape.iter().product() };
        let outside = || {
            let found = "a tensor of another file".to_string();
            WeightError::new(&self.path, "a tensor of this file", found, "").tensor(&tensor.name)
        };
        let storage = self.bytes.get(tensor.range.clone()).ok_or_else(outside)?;
        let first = tensor.offset * size;
        if tensor.is_contiguous() {
            let part =
                if count == 0 { Some(&[][..]) } else { storage.get(first..first + count * size) };
            return Ok(Cow::Borrowed(part.ok_or_else(outside)?));
        }
        if count > storage.len() / size {
            return Err(WeightError::new(
                &self.path,
                "a tensor with elements of its own",
                "an expanded one, whose elements share memory",
                "save it after `.contiguous()`",
            )
            .tensor(&tensor.name)
            .into());
        }
        let mut out = Vec::with_capacity(count * size);
        let mut index = vec![0usize; tensor.shape.len()];
        for _ in 0..count {
            let steps = index.iter().zip(&tensor.strides).map(|(&i, &stride)| i * stride);
            let at = first + steps.sum::<usize>() * size;
            out.extend_from_slice(storage.get(at..at + size).ok_or_else(outside)?);
            for dimension in (0..index.len()).rev() {
                index[dimension] += 1;
                if index[dimension] < tensor.shape[dimension] {
                    break;
                }
                index[dimension] = 0;
            }
        }
        Ok(Cow::Owned(out))
    }
}

/// Where each storage's bytes are in the file, by the storage's key.
type Places = BTreeMap<String, Range<usize>>;

/// Reads the zip archive.
fn read_archive(path: &Path, bytes: &[u8]) -> Result<(Heap, Places)> {
    if !bytes.starts_with(b"PK") {
        let found = if bytes.starts_with(&[0x80]) {
            "a pickle that is no file of `torch.save`".to_string()
        } else if bytes.starts_with(b"version https://git-lfs") {
            "a Git LFS pointer instead of the file (fetch it with `git lfs pull`)".to_string()
        } else {
            "something else".to_string()
        };
        let expected = "the zip archive that `torch.save` writes";
        return Err(WeightError::new(path, expected, found, CONVERT).into());
    }
    let entries = zip::entries(path, bytes)?;
    let pickle = entries.iter().find(|(name, _)| {
        name.as_str() == "data.pkl"
            || name.strip_suffix("/data.pkl").is_some_and(|top| !top.contains('/'))
    });
    let fault = |expected: &str, found: String| WeightError::new(path, expected, found, CONVERT);
    let Some((name, range)) = pickle else {
        return Err(fault("an entry `data.pkl`", format!("{} others", entries.len())).into());
    };
    let top = name.strip_suffix("data.pkl").unwrap_or_default();
    if entries.contains_key(&format!("{top}constants.pkl")) {
        return Err(fault("a dictionary of tensors", "a TorchScript program".into()).into());
    }
    if let Some(order) = entries.get(&format!("{top}byteorder"))
        && &bytes[order.clone()] != b"little"
    {
        let order = String::from_utf8_lossy(&bytes[order.clone()]).into_owned();
        let found = format!("the byte order `{}`", excerpt(&order));
        return Err(fault("numbers in little-endian order", found).into());
    }
    let heap = pickle::run(path, &bytes[range.clone()])?;
    let data = format!("{top}data/");
    let places = entries
        .into_iter()
        .filter_map(|(name, range)| Some((name.strip_prefix(&data)?.to_owned(), range)))
        .collect();
    Ok((heap, places))
}

fn named_tensors(heap: &Heap) -> Vec<(&str, &TensorView)> {
    fn of<'h>(heap: &'h Heap, item: &Item) -> Vec<(&'h str, &'h TensorView)> {
        let pairs = heap.pairs(item).into_iter().flatten();
        pairs
            .filter_map(|pair| match pair {
                (Item::Text(name), Item::Tensor(view)) => Some((&**name, &**view)),
                _ => None,
            })
            .collect()
    }
    for wanted in ["state_dict", "model_state_dict", "model"] {
        let inner = heap.pairs(&heap.result).into_iter().flatten().find(
            |(key, value)| matches!((key, value), (Item::Text(key), Item::Dict(_)) if &**key == wanted),
        );
        if let Some((_, inner)) = inner {
            return of(heap, inner);
        }
    }
    of(heap, &heap.result)
}

fn check(
    path: &Path,
    name: &str,
    view: &TensorView,
    range: Option<&Range<usize>>,
) -> Result<TorchTensor> {
    let storage = &view.storage;
    let fault = |expected: &str, found: String| {
        let remedy = "the file is damaged; fetch or save it again";
        WeightError::new(path, expected, found, remedy).tensor(name)
    };
    let Some(range) = range else {
        let expected = format!("an entry `data/{}` with its elements", excerpt(&storage.key));
        return Err(fault(&expected, "none".to_string()).into());
    };
    if storage.dtype.bytes(&[storage.elements]) != Some(range.len()) {
        let expected = format!("{} elements of {}", storage.elements, storage.dtype);
        return Err(fault(&expected, format!("{} bytes", range.len())).into());
    }
    let empty = view.shape.contains(&0);
    // The last element's place, and with it every place, is inside the storage.
    let last =
        view.shape.iter().zip(&view.strides).try_fold(view.offset, |last, (&length, &stride)| {
            last.checked_add(length.saturating_sub(1).checked_mul(stride)?)
        });
    let fits = empty || last.is_some_and(|last| last < storage.elements);
    let count_fits = empty || storage.dtype.bytes(&view.shape).is_some();
    if !fits || !count_fits {
        let expected = format!("a view of {} elements", storage.elements);
        let found =
            format!("offset {}, shape {:?}, strides {:?}", view.offset, view.shape, view.strides);
        return Err(fault(&expected, found).into());
    }
    Ok(TorchTensor {
        name: name.to_string(),
        dtype: storage.dtype,
        // An empty tensor's other dimensions may be any number; they are never multiplied up.
        shape: view.shape.clone(),
        strides: view.strides.clone(),
        storage: storage.key.to_string(),
        offset: if empty { 0 } else { view.offset },
        range: range.clone(),
    })
}

#[cfg(test)]
pub(crate) mod tests;
