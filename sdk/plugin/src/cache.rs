//! What models keep of the tokens so far while the host generates.

use crate::{Error, Lent, Map, Result, Tensor};
use std::cell::RefCell;

/// Keys and values, or whatever else a model keeps with one row per token, so that it reads each token once
/// ([`crate::Call::cache`]).
///
/// A model keeps what belongs together under one name, for instance "decoder.3" for the keys and values of a layer;
/// the host gathers the rows of runs that go on, reorders them and drops those of finished ones.
pub struct Cache<'a> {
    map: Lent<'a, Map>,
    /// Whether there was nothing in it when the call began.
    was_empty: bool,
    /// Names that this call has used.
    used: RefCell<Vec<String>>,
    /// How the latest rows were joined: layers of a model usually join the same runs.
    joined: RefCell<Option<Joined>>,
}

/// Runs of kept rows with the new rows of each at its end.
struct Joined {
    kept: Vec<i64>,
    new: Vec<i64>,
    /// Rows of the concatenation of kept and new rows, run by run.
    order: Tensor,
    starts: Tensor,
}

impl Joined {
    fn new(kept: Vec<i64>, new: Vec<i64>) -> Result<Self> {
        let kept_rows = kept.last().copied().unwrap_or(0);
        let (mut order, mut starts) = (Vec::new(), vec![0]);
        for (kept, new) in kept.windows(2).zip(new.windows(2)) {
            order.extend(kept[0]..kept[1]);
            order.extend(kept_rows + new[0]..kept_rows + new[1]);
            starts.push(order.len() as i64);
        }
        Ok(Self {
            kept,
            new,
            order: Tensor::from_slice(&order, &[order.len()])?,
            starts: Tensor::from_slice(&starts, &[starts.len()])?,
        })
    }
}

/// Rows of all tokens so far, and the cumulative lengths [B + 1] of their runs.
pub type KeptRows<const N: usize> = ([Tensor; N], Tensor);

impl<'a> Cache<'a> {
    pub(crate) fn new(map: Lent<'a, Map>) -> Self {
        let was_empty = map.is_empty();
        Self { map, was_empty, used: RefCell::default(), joined: RefCell::default() }
    }

    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// Whether the model has read no token yet: it then reads the whole batch, and later the new tokens alone.
    pub fn is_empty(&self) -> bool {
        self.was_empty
    }

    /// Appends `rows` [T, ..] of the runs' new tokens to those that are kept under `name`, and answers with all of
    /// them and their starts: the keys and values that attention reads, in one line per layer. Without a cache the
    /// new rows are all there are.
    ///
    /// Errors: a cache of another model, which has nothing of that name, or other widths or numbers of runs.
    pub fn append<const N: usize>(
        cache: Option<&Self>,
        name: &str,
        rows: [Tensor; N],
        starts: &Tensor,
    ) -> Result<KeptRows<N>> {
        let Some(cache) = cache else { return Ok((rows, starts.clone())) };
        let (rows, starts) = match cache.find(name)? {
            Some((kept, kept_starts)) => cache.join(name, kept, kept_starts, rows, starts)?,
            None => (rows, starts.clone()),
        };
        cache.put(name, &rows, &starts)?;
        Ok((rows, starts))
    }

    /// What `make` gives, made once and kept under `name`: rows of runs that do not grow, such as the keys and values
    /// that a decoder's layer makes of the encoder's output. Without a cache it is made each time.
    ///
    /// Errors: as [`Cache::append`] for names, and those of `make`.
    pub fn once<const N: usize>(
        cache: Option<&Self>,
        name: &str,
        make: impl FnOnce() -> Result<KeptRows<N>>,
    ) -> Result<KeptRows<N>> {
        let Some(cache) = cache else { return make() };
        if let Some(kept) = cache.find(name)? {
            return Ok(kept);
        }
        let (rows, starts) = make()?;
        cache.put(name, &rows, &starts)?;
        Ok((rows, starts))
    }

    /// What is kept under `name`; nothing in the call that fills the cache.
    fn find<const N: usize>(&self, name: &str) -> Result<Option<KeptRows<N>>> {
        if self.used.borrow().iter().any(|used| used == name) {
            return Err(Error::invalid(format!("cache: {name:?} is used twice in one call")));
        }
        self.used.borrow_mut().push(name.to_owned());
        if self.was_empty {
            return Ok(None);
        }
        let starts = self.map.find(&format!("{name}/starts"))?;
        let rows: Vec<Tensor> = (0..N)
            .filter_map(|part| self.map.find(&format!("{name}/{part}")).transpose())
            .collect::<Result<_>>()?;
        match (<[Tensor; N]>::try_from(rows), starts) {
            (Ok(rows), Some(starts)) => Ok(Some((rows, starts))),
            _ => Err(self.foreign(&format!(
                "expected {N} tensors under {name:?}, found {:?}",
                self.map.names()
            ))),
        }
    }

    fn put(&self, name: &str, rows: &[Tensor], starts: &Tensor) -> Result<()> {
        // SAFETY: the wrapper is used here alone and gives nothing back; maps lock themselves.
        let mut map = unsafe { Map::lend_mut(self.map.as_raw()) }?;
        for (part, rows) in rows.iter().enumerate() {
            map.put(&format!("{name}/{part}"), rows)?;
        }
        map.put(&format!("{name}/starts"), starts)
    }

    fn join<const N: usize>(
        &self,
        name: &str,
        kept: [Tensor; N],
        kept_starts: Tensor,
        new: [Tensor; N],
        starts: &Tensor,
    ) -> Result<KeptRows<N>> {
        if kept_starts.len() != starts.len() {
            return Err(self.foreign(&format!(
                "expected {} runs under {name:?} as in the batch, found {}",
                starts.len().saturating_sub(1),
                kept_starts.len().saturating_sub(1)
            )));
        }
        let is_other = |(kept, new): &(&Tensor, &Tensor)| {
            kept.dtype() != new.dtype() || kept.shape().get(1..) != new.shape().get(1..)
        };
        if let Some((kept, new)) = kept.iter().zip(&new).find(is_other) {
            return Err(self.foreign(&format!(
                "expected rows of {new:?} under {name:?}, found those of {kept:?}"
            )));
        }
        let (kept_starts, starts) = (kept_starts.to_vec::<i64>()?, starts.to_vec::<i64>()?);
        let mut joined = self.joined.borrow_mut();
        let known = joined.take_if(|last| last.kept == kept_starts && last.new == starts);
        let joined = joined.insert(match known {
            Some(known) => known,
            None => Joined::new(kept_starts, starts)?,
        });
        let mut rows = Vec::with_capacity(N);
        for (kept, new) in kept.iter().zip(&new) {
            rows.push(Tensor::concat(&[kept, new], 0)?.index_select(0, &joined.order)?);
        }
        let rows = rows.try_into().map_err(|_| Error::invalid("cache: another number of rows"))?;
        Ok((rows, joined.starts.clone()))
    }

    fn foreign(&self, what: &str) -> Error {
        Error::invalid(format!("cache: {what}; it belongs to another model"))
    }

    /// Refuses a cache that holds more than this call has used.
    pub(crate) fn finish(&self) -> Result<()> {
        let used = self.used.borrow();
        let is_used = |entry: &String| {
            entry.rsplit_once('/').is_some_and(|(name, _)| used.iter().any(|used| used == name))
        };
        match self.map.names().iter().find(|entry| !is_used(entry)) {
            Some(entry) if !self.was_empty => {
                Err(self.foreign(&format!("nothing in this model reads {entry:?}")))
            }
            _ => Ok(()),
        }
    }
}
