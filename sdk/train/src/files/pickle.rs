//! A pickle machine that can build tensors' descriptions and nothing else. It knows the few globals that `torch.save`
//! uses for a dictionary of tensors and answers each with data; no name is ever looked up and nothing is ever called.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::rc::Rc;

use crate::error::{WeightError, excerpt};
use crate::files::dtype::WeightType;

/// The most dimensions of a tensor.
const MOST_DIMENSIONS: usize = 16;
/// The most instructions of a program. A tensor takes about fifty, so this is room for tens of thousands of them;
/// since each instruction makes a bounded number of small objects, it is also the limit of the memory that a file can
/// ask for.
pub(crate) const MOST_INSTRUCTIONS: usize = 2_000_000;

/// A value on the machine's stack. Containers are indices into the machine's arena, so that neither sharing nor cycles
/// nor deep nesting costs recursion.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Text(Rc<str>),
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(Rc<str>),
    Storage(Rc<Storage>),
    Tensor(Rc<TensorView>),
}

/// A storage: some elements of one archive entry.
#[derive(Debug)]
pub(crate) struct Storage {
    pub dtype: WeightType,
    pub key: Rc<str>,
    pub elements: usize,
}

/// A tensor as a view of a storage.
#[derive(Debug)]
pub(crate) struct TensorView {
    pub storage: Rc<Storage>,
    /// In elements.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// In elements.
    pub strides: Vec<usize>,
}

/// What a program left.
pub(crate) struct Heap {
    containers: Vec<Vec<Item>>,
    pub result: Item,
    /// Every storage that the program named, by its key.
    pub storages: BTreeMap<Rc<str>, Rc<Storage>>,
    /// The program's bytes, its end included.
    pub length: usize,
}

impl Heap {
    /// The keys and values of a dictionary.
    pub fn pairs(&self, item: &Item) -> Option<impl Iterator<Item = (&Item, &Item)>> {
        let Item::Dict(index) = item else { return None };
        Some(self.containers.get(*index)?.chunks_exact(2).map(|two| (&two[0], &two[1])))
    }

    /// The items of a list.
    pub fn list(&self, item: &Item) -> Option<&[Item]> {
        let Item::List(index) = item else { return None };
        self.containers.get(*index).map(Vec::as_slice)
    }
}

type Fault = WeightError;

struct Machine<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Item>,
    marks: Vec<usize>,
    memo: HashMap<u64, Item>,
    containers: Vec<Vec<Item>>,
    storages: BTreeMap<Rc<str>, Rc<Storage>>,
}

/// Runs the program at the beginning of `bytes`, which belong to the file `path`.
pub(crate) fn run(path: &Path, bytes: &[u8]) -> Result<Heap, WeightError> {
    let mut machine = Machine {
        path,
        bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        containers: Vec::new(),
        storages: BTreeMap::new(),
    };
    let mut instructions = 0;
    while !machine.step()? {
        instructions += 1;
        if instructions == MOST_INSTRUCTIONS {
            return Err(machine.fault(format!("more than {MOST_INSTRUCTIONS} instructions")));
        }
    }
    let result = machine.pop()?;
    let Machine { containers, storages, at, .. } = machine;
    Ok(Heap { containers, result, storages, length: at })
}

impl Machine<'_> {
    fn fault(&self, found: impl Into<String>) -> Fault {
        let expected = "a pickled dictionary of tensors";
        let found = format!("{} at offset {} of the pickle", found.into(), self.at);
        let remedy = "save `model.state_dict()` with `torch.save`, or convert it to safetensors";
        WeightError::new(self.path, expected, found, remedy)
    }

    fn take(&mut self, count: usize) -> Result<&[u8], Fault> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else { return Err(self.fault("the end of the data")) };
        let part = &self.bytes[self.at..end];
        self.at = end;
        Ok(part)
    }

    fn unsigned(&mut self, width: usize) -> Result<u64, Fault> {
        let part = self.take(width)?;
        Ok(part.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn text(&mut self, width: usize) -> Result<Rc<str>, Fault> {
        let count = self.unsigned(width)?;
        let bytes = self.take(usize::try_from(count).unwrap_or(usize::MAX))?;
        match std::str::from_utf8(bytes).map(Rc::from) {
            Ok(text) => Ok(text),
            Err(_) => Err(self.fault("a text that is not UTF-8")),
        }
    }

    fn line(&mut self) -> Result<String, Fault> {
        let length = self.bytes[self.at..].iter().position(|&byte| byte == b'\n');
        let Some(length) = length else { return Err(self.fault("the end of the data")) };
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.at += 1;
        Ok(text)
    }

    fn pop(&mut self) -> Result<Item, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.fault("an empty stack"));
        }
        self.stack.pop().ok_or_else(|| self.fault("an empty stack"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Item>, Fault> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => Err(self.fault("no mark")),
        }
    }

    fn add(&mut self, items: Vec<Item>) -> usize {
        self.containers.push(items);
        self.containers.len() - 1
    }

    fn remember(&mut self, key: u64) -> Result<(), Fault> {
        let Some(top) = self.stack.last().cloned() else {
            return Err(self.fault("an empty stack"));
        };
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<(), Fault> {
        let Some(item) = self.memo.get(&key).cloned() else {
            return Err(self.fault(format!("a reference to the unknown memo {key}")));
        };
        self.stack.push(item);
        Ok(())
    }

    fn tuple(&mut self, count: usize) -> Result<(), Fault> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        let index = self.add(items);
        self.stack.push(Item::Tuple(index));
        Ok(())
    }

    /// Extends the container below with `items`.
    fn extend(&mut self, items: Vec<Item>, dict: bool) -> Result<(), Fault> {
        let index = match self.stack.last() {
            Some(Item::Dict(index)) if dict && items.len().is_multiple_of(2) => *index,
            Some(Item::List(index)) if !dict => *index,
            _ => return Err(self.fault("items for something that is no container")),
        };
        self.containers[index].extend(items);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), Fault> {
        let full = format!("{module}.{name}");
        let known = matches!(
            full.as_str(),
            "collections.OrderedDict"
                | "torch._utils._rebuild_tensor"
                | "torch._utils._rebuild_tensor_v2"
                | "torch._utils._rebuild_parameter"
        ) || storage_type(&full).is_some();
        if !known {
            return Err(self.fault(format!("the global `{}`", excerpt(&full))));
        }
        self.stack.push(Item::Global(full.into()));
        Ok(())
    }

    /// Executes one instruction; true at the end of the program.
    fn step(&mut self) -> Result<bool, Fault> {
        let opcode = self.unsigned(1)? as u8;
        match opcode {
            0x80 => {
                let version = self.unsigned(1)?;
                if version > 5 {
                    return Err(self.fault(format!("pickle protocol {version}")));
                }
            }
            // A frame's length helps only readers of streams.
            0x95 => drop(self.unsigned(8)?),
            b'.' => return Ok(true),
            b'(' => self.marks.push(self.stack.len()),
            b'}' => {
                let index = self.add(Vec::new());
                self.stack.push(Item::Dict(index));
            }
            b']' => {
                let index = self.add(Vec::new());
                self.stack.push(Item::List(index));
            }
            b')' => self.tuple(0)?,
            0x85..=0x87 => self.tuple(usize::from(opcode - 0x84))?,
            b't' => {
                let items = self.pop_to_mark()?;
                let index = self.add(items);
                self.stack.push(Item::Tuple(index));
            }
            b'N' => self.stack.push(Item::None),
            0x88 | 0x89 => self.stack.push(Item::Bool(opcode == 0x88)),
            b'K' | b'M' => {
                let value = self.unsigned(if opcode == b'K' { 1 } else { 2 })?;
                self.stack.push(Item::Int(value as i64));
            }
            b'J' => {
                let value = self.unsigned(4)? as u32 as i32;
                self.stack.push(Item::Int(i64::from(value)));
            }
            0x8a => {
                let count = self.unsigned(1)? as usize;
                if count > 8 {
                    return Err(self.fault("an integer of more than 64 bits"));
                }
                let value = self.unsigned(count)?;
                // Sign-extends from `count` bytes.
                let unused = 64 - 8 * count as u32;
                let value = if count == 0 { 0 } else { ((value << unused) as i64) >> unused };
                self.stack.push(Item::Int(value));
            }
            b'G' => {
                self.take(8)?;
                self.stack.push(Item::Float);
            }
            b'X' | b'U' | 0x8c | 0x8d | b'T' => {
                let width = match opcode {
                    b'X' | b'T' => 4,
                    0x8d => 8,
                    _ => 1,
                };
                let text = self.text(width)?;
                self.stack.push(Item::Text(text));
            }
            b'q' | b'r' => {
                let key = self.unsigned(if opcode == b'q' { 1 } else { 4 })?;
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' | b'j' => {
                let key = self.unsigned(if opcode == b'h' { 1 } else { 4 })?;
                self.recall(key)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Item::Text(name), Item::Text(module)) => self.global(&module, &name)?,
                _ => return Err(self.fault("a global without a name")),
            },
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(&id)?;
                self.stack.push(storage);
            }
            b'R' => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let item = self.reduce(callable, arguments)?;
                self.stack.push(item);
            }
            b'b' => {
                // The attributes of a dictionary of weights (`_metadata`) say nothing about the weights.
                self.pop()?;
                if !matches!(self.stack.last(), Some(Item::Dict(_))) {
                    return Err(self.fault("attributes for something that is no dictionary"));
                }
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend(vec![key, value], true)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.extend(items, true)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item], false)?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.extend(items, false)?;
            }
            other => return Err(self.fault(format!("the instruction 0x{other:02x}"))),
        }
        Ok(false)
    }

    fn tuple_items(&self, item: &Item) -> Option<&[Item]> {
        match item {
            Item::Tuple(index) => self.containers.get(*index).map(Vec::as_slice),
            _ => None,
        }
    }

    /// A persistent id, `("storage", type, key, device, elements)`; before PyTorch 1.6 a sixth item said of which
    /// other storage it was a part, which nothing has been since PyTorch 0.4.
    fn storage(&mut self, id: &Item) -> Result<Item, Fault> {
        let (Some(
            [Item::Text(kind), Item::Global(class), Item::Text(key), _, Item::Int(elements)],
        )
        | Some(
            [
                Item::Text(kind),
                Item::Global(class),
                Item::Text(key),
                _,
                Item::Int(elements),
                Item::None,
            ],
        )) = self.tuple_items(id)
        else {
            return Err(self.fault("a persistent id that is no storage"));
        };
        let (Some(dtype), Ok(elements)) = (storage_type(class), usize::try_from(*elements)) else {
            return Err(self.fault(format!("a storage of the class `{class}`")));
        };
        if &**kind != "storage" {
            return Err(self.fault(format!("a persistent id of the kind `{}`", excerpt(kind))));
        }
        let storage = Rc::new(Storage { dtype, key: key.clone(), elements });
        if let Some(known) = self.storages.get(key)
            && (known.dtype, known.elements) != (dtype, elements)
        {
            return Err(self.fault(format!("two descriptions of the storage `{}`", excerpt(key))));
        }
        self.storages.insert(storage.key.clone(), storage.clone());
        Ok(Item::Storage(storage))
    }

    fn reduce(&mut self, callable: Item, arguments: Item) -> Result<Item, Fault> {
        let Item::Global(name) = &callable else {
            return Err(self.fault("a call of something that is no known global"));
        };
        let Some(items) = self.tuple_items(&arguments) else {
            return Err(self.fault("a call without arguments"));
        };
        match (&**name, items) {
            ("collections.OrderedDict", []) => Ok(Item::Dict(self.add(Vec::new()))),
            ("collections.OrderedDict", [Item::List(index)]) => {
                // Pairs, each a tuple or a list of two.
                // The list is used up, so that a short program cannot copy it again and again.
                let index = *index;
                let pairs = std::mem::take(&mut self.containers[index]);
                let mut flat = Vec::with_capacity(pairs.len() * 2);
                for pair in &pairs {
                    let (Item::Tuple(pair) | Item::List(pair)) = pair else {
                        return Err(self.fault("an ordered dictionary made of no pairs"));
                    };
                    let [key, value] = &self.containers[*pair][..] else {
                        return Err(self.fault("an ordered dictionary made of no pairs"));
                    };
                    flat.extend([key.clone(), value.clone()]);
                }
                Ok(Item::Dict(self.add(flat)))
            }
            ("torch._utils._rebuild_parameter", [tensor @ Item::Tensor(_), ..]) => {
                Ok(tensor.clone())
            }
            (
                "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2",
                [Item::Storage(storage), Item::Int(offset), shape, strides, ..],
            ) => {
                let sizes = |item: &Item| -> Option<Vec<usize>> {
                    self.tuple_items(item)
                        .filter(|sizes| sizes.len() <= MOST_DIMENSIONS)?
                        .iter()
                        .map(|size| match size {
                            Item::Int(size) => usize::try_from(*size).ok(),
                            _ => None,
                        })
                        .collect()
                };
                let (Some(shape), Some(strides), Ok(offset)) =
                    (sizes(shape), sizes(strides), usize::try_from(*offset))
                else {
                    return Err(self.fault("a tensor with a senseless shape"));
                };
                if shape.len() != strides.len() {
                    return Err(self.fault("a tensor whose shape and strides differ in length"));
                }
                let storage = storage.clone();
                Ok(Item::Tensor(Rc::new(TensorView { storage, offset, shape, strides })))
            }
            _ => Err(self.fault(format!("other arguments than `{name}` takes"))),
        }
    }
}

fn storage_type(name: &str) -> Option<WeightType> {
    Some(match name {
        "torch.FloatStorage" => WeightType::F32,
        "torch.DoubleStorage" => WeightType::F64,
        "torch.HalfStorage" => WeightType::F16,
        "torch.BFloat16Storage" => WeightType::BF16,
        "torch.LongStorage" => WeightType::I64,
        "torch.IntStorage" => WeightType::I32,
        "torch.ShortStorage" => WeightType::I16,
        "torch.CharStorage" => WeightType::I8,
        "torch.ByteStorage" => WeightType::U8,
        "torch.BoolStorage" => WeightType::Bool,
        _ => return None,
    })
}
