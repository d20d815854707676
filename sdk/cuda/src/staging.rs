//! Copies to the card that nobody waits for: values go into page-locked memory, from where the card fetches them in
//! the order of a stream.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream, result};

use super::device::{failed, waits};
use easytransfer_core::error::Result;

/// Bytes of one block; longer values go in pieces.
const BLOCK: usize = 2 << 20;
/// Blocks before the host waits for the card instead of taking more memory.
const MOST_BLOCKS: usize = 32;
/// Values begin at multiples of this.
const ALIGNMENT: usize = 256;

/// What the ring needs: page-locked memory, and marks in the order of the card's work.
trait Card {
    type Mark;
    /// Memory of [`BLOCK`] bytes that is never given back.
    fn block(&self) -> Result<NonNull<u8>>;
    /// A mark after all that the card was given so far.
    fn mark(&self) -> Result<Self::Mark>;
    fn has_passed(&self, mark: &Self::Mark) -> Result<bool>;
    fn wait(&self, mark: &Self::Mark) -> Result<()>;
}

/// Memory, and the mark behind the last copy out of it.
struct Block<M> {
    memory: NonNull<u8>,
    mark: Option<M>,
}

// SAFETY: the memory belongs to the block alone, and marks say themselves whether they may move.
unsafe impl<M: Send> Send for Block<M> {}

/// Blocks that are used in turn. The first is the one that is filled.
struct Ring<M> {
    blocks: VecDeque<Block<M>>,
    used: usize,
}

impl<M> Ring<M> {
    /// Room for at most [`BLOCK`] bytes, which the card must be told to copy before the next call.
    fn place(&mut self, card: &impl Card<Mark = M>, bytes: usize) -> Result<NonNull<u8>> {
        debug_assert!(bytes <= BLOCK);
        if self.blocks.is_empty() || self.used + bytes > BLOCK {
            self.turn(card)?;
        }
        // A turn leaves at least one block.
        let memory = self.blocks[0].memory;
        // SAFETY: `used` is at most BLOCK, the length of the memory.
        let place = unsafe { memory.add(self.used) };
        self.used = (self.used + bytes).next_multiple_of(ALIGNMENT).min(BLOCK);
        Ok(place)
    }

    /// Makes a block that the card has left the first.
    fn turn(&mut self, card: &impl Card<Mark = M>) -> Result<()> {
        if let Some(full) = self.blocks.front_mut() {
            full.mark = Some(card.mark()?);
            self.blocks.rotate_left(1);
        }
        // The block that was full for the longest time is now the first.
        let free = match self.blocks.front().map(|block| &block.mark) {
            Some(Some(mark)) => card.has_passed(mark)?,
            Some(None) => true,
            None => false,
        };
        if !free {
            if self.blocks.len() < MOST_BLOCKS {
                self.blocks.push_front(Block { memory: card.block()?, mark: None });
            } else if let Some(Block { mark: Some(mark), .. }) = self.blocks.front() {
                card.wait(mark)?;
            }
        }
        self.used = 0;
        Ok(())
    }
}

/// A stream with its ring.
pub(super) struct Staging {
    pub stream: Arc<CudaStream>,
    ring: Ring<CudaEvent>,
}

struct Stream<'a>(&'a CudaStream);

impl Card for Stream<'_> {
    type Mark = CudaEvent;

    fn block(&self) -> Result<NonNull<u8>> {
        let error = |error| failed("allocate page-locked memory", error);
        self.0.context().bind_to_thread().map_err(error)?;
        // SAFETY: the memory is never freed, and it is written before the card reads it.
        let memory = unsafe { result::malloc_host(BLOCK, 0) }.map_err(error)?;
        NonNull::new(memory.cast()).ok_or_else(|| failed("allocate page-locked memory", "NULL"))
    }

    fn mark(&self) -> Result<CudaEvent> {
        self.0.record_event(None).map_err(|error| failed("mark a stream", error))
    }

    fn has_passed(&self, mark: &CudaEvent) -> Result<bool> {
        mark.try_is_complete().map_err(|error| failed("ask for a mark", error))
    }

    fn wait(&self, mark: &CudaEvent) -> Result<()> {
        waits("copies to the card");
        mark.synchronize().map_err(|error| failed("wait for copies to the card", error))
    }
}

impl Staging {
    pub fn new(stream: Arc<CudaStream>) -> Self {
        Self { stream, ring: Ring { blocks: VecDeque::new(), used: 0 } }
    }

    /// Copies `bytes` to the address `to` on the card, in the order of the stream; `bytes` may go when this returns.
    ///
    /// # Safety
    /// `to` is the address of as many bytes that live until the copy has run.
    pub unsafe fn copy(&mut self, bytes: &[u8], to: u64) -> Result<()> {
        let error = |error| failed("copy to the card", error);
        self.stream.context().bind_to_thread().map_err(error)?;
        for (index, piece) in bytes.chunks(BLOCK).enumerate() {
            let place = self.ring.place(&Stream(&self.stream), piece.len())?;
            // SAFETY: the place has room for the piece, and the card no longer reads what was there.
            let staged = unsafe {
                place.copy_from_nonoverlapping(NonNull::from(piece).cast::<u8>(), piece.len());
                std::slice::from_raw_parts(
                    place.as_ptr().cast::<c_void>().cast::<u8>(),
                    piece.len(),
                )
            };
            let at = to + (index * BLOCK) as u64;
            // SAFETY: by the contract; the staged bytes stay as they are until the mark behind them was passed.
            unsafe { result::memcpy_htod_async(at, staged, self.stream.cu_stream()) }
                .map_err(error)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A card that is `behind` marks late.
    struct Paper {
        marks: Cell<usize>,
        behind: usize,
        blocks: RefCell<Vec<Vec<u8>>>,
        waits: Cell<usize>,
    }

    impl Card for Paper {
        type Mark = usize;
        fn block(&self) -> Result<NonNull<u8>> {
            let mut blocks = self.blocks.borrow_mut();
            blocks.push(vec![0; BLOCK]);
            Ok(NonNull::new(blocks.last_mut().unwrap().as_mut_ptr()).unwrap())
        }
        fn mark(&self) -> Result<usize> {
            self.marks.set(self.marks.get() + 1);
            Ok(self.marks.get())
        }
        fn has_passed(&self, mark: &usize) -> Result<bool> {
            Ok(mark + self.behind <= self.marks.get())
        }
        fn wait(&self, mark: &usize) -> Result<()> {
            assert!(!self.has_passed(mark)?, "waited for what was over");
            self.waits.set(self.waits.get() + 1);
            Ok(())
        }
    }

    fn paper(behind: usize) -> (Paper, Ring<usize>) {
        let card =
            Paper { marks: Cell::new(0), behind, blocks: RefCell::default(), waits: Cell::new(0) };
        (card, Ring { blocks: VecDeque::new(), used: 0 })
    }

    #[test]
    fn places_of_one_block_do_not_overlap() {
        let (card, mut ring) = paper(1);
        let places: Vec<usize> =
            [1, 300, 7, BLOCK / 2].map(|n| ring.place(&card, n).unwrap().as_ptr() as usize).into();
        let first = places[0];
        assert_eq!(places.iter().map(|p| p - first).collect::<Vec<_>>(), [0, 256, 768, 1024]);
        assert_eq!((card.blocks.borrow().len(), card.marks.get()), (1, 0));
        ring.place(&card, BLOCK).unwrap();
        assert_eq!((card.blocks.borrow().len(), card.marks.get()), (2, 1));
    }

    #[test]
    fn a_block_is_used_again_when_the_card_has_left_it() {
        let (card, mut ring) = paper(3);
        for _ in 0..100 {
            ring.place(&card, BLOCK).unwrap();
        }
        // The block that is filled, and three that the card may still read.
        assert_eq!((card.blocks.borrow().len(), card.waits.get()), (4, 0));
    }

    #[test]
    fn the_host_waits_only_when_all_blocks_are_read() {
        let (card, mut ring) = paper(MOST_BLOCKS + 1);
        for _ in 0..MOST_BLOCKS + 5 {
            ring.place(&card, BLOCK).unwrap();
        }
        assert_eq!((card.blocks.borrow().len(), card.waits.get()), (MOST_BLOCKS, 5));
    }
}
