//! The driver of NVIDIA's cards, asked at run time: nothing is linked.

use std::ffi::{CStr, c_char, c_int};
use std::mem::ManuallyDrop;

use libloading::Library;

use super::EngineError;

/// Names under which the driver's library is installed.
const NAMES: &[&str] =
    if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };

/// Compute capability that the kernels need at least.
const LEAST: (i32, i32) = (8, 0);

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR` of cuda.h.
const CAPABILITY: [c_int; 2] = [75, 76];
/// `CUDA_ERROR_NO_DEVICE` of cuda.h.
const NO_DEVICE: c_int = 100;

/// One card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its number, as in `cuda:N`.
    pub number: u32,
    /// Its name, for instance "NVIDIA H200".
    pub name: String,
    /// Bytes of memory.
    pub memory: u64,
    /// Compute capability, for instance (9, 0).
    pub capability: (i32, i32),
}

/// What the driver answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Newest CUDA version that it runs, for instance (13, 0).
    pub version: (i32, i32),
    /// All cards that this process may use.
    pub cards: Vec<Card>,
}

type Status = c_int;

/// The functions that are asked, from cuda.h.
struct Functions {
    init: unsafe extern "C" fn(u32) -> Status,
    version: unsafe extern "C" fn(*mut c_int) -> Status,
    count: unsafe extern "C" fn(*mut c_int) -> Status,
    device: unsafe extern "C" fn(*mut c_int, c_int) -> Status,
    name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> Status,
    memory: unsafe extern "C" fn(*mut usize, c_int) -> Status,
    attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> Status,
}

fn functions(library: &Library) -> Result<Functions, libloading::Error> {
    // SAFETY: the types are those of cuda.h, and the library is never closed.
    unsafe {
        Ok(Functions {
            init: *library.get(b"cuInit\0")?,
            version: *library.get(b"cuDriverGetVersion\0")?,
            count: *library.get(b"cuDeviceGetCount\0")?,
            device: *library.get(b"cuDeviceGet\0")?,
            name: *library.get(b"cuDeviceGetName\0")?,
            memory: *library.get(b"cuDeviceTotalMem_v2\0")?,
            attribute: *library.get(b"cuDeviceGetAttribute\0")?,
        })
    }
}

impl Driver {
    /// Opens the driver and asks for its cards. Errors: `Driver` when there is none or it does not answer, `Card`
    /// when there is no card.
    pub fn open() -> Result<Driver, EngineError> {
        let mut reasons = Vec::new();
        let opened = NAMES.iter().find_map(|name| {
            // SAFETY: opening the driver runs its constructors; that is how every program uses it.
            match unsafe { Library::new(*name) } {
                Ok(library) => Some(ManuallyDrop::new(library)),
                Err(error) => {
                    reasons.push(format!("`{name}`: {}", crate::open::chain(&error)));
                    None
                }
            }
        });
        let Some(library) = opened else {
            return Err(EngineError::Driver(format!(
                "expected {} where the system's dynamic linker looks (LD_LIBRARY_PATH, ld.so.conf, /usr/lib), found none ({}); install the driver of the card, or use `device=cpu`",
                NAMES.join(" or "),
                reasons.join("; ")
            )));
        };
        let driver = functions(&library).map_err(|error| {
            EngineError::Driver(format!("`{}` is no CUDA driver: {error}", NAMES[0]))
        })?;
        // SAFETY: the functions are called as cuda.h says, with places for their results.
        unsafe { driver.ask() }
    }

    /// The card of that number. Errors: `Card` when there is none, or it is too old for the kernels.
    pub fn card(&self, number: u32) -> Result<&Card, EngineError> {
        let Some(card) = self.cards.get(number as usize) else {
            return Err(EngineError::Card(format!(
                "expected device {number}, found {} (numbers count from 0; CUDA_VISIBLE_DEVICES hides cards)",
                self.cards.len()
            )));
        };
        if card.capability < LEAST {
            return Err(EngineError::Card(format!(
                "`{}` has compute capability {}.{}, expected {}.{} or newer (Ampere); use `device=cpu`",
                card.name, card.capability.0, card.capability.1, LEAST.0, LEAST.1
            )));
        }
        Ok(card)
    }
}

impl Functions {
    /// # Safety
    /// The functions are those of cuda.h.
    unsafe fn ask(&self) -> Result<Driver, EngineError> {
        let no_card = || {
            EngineError::Card(
                "the driver is there and finds no device: is a card installed, and does CUDA_VISIBLE_DEVICES allow it? use `device=cpu` without one"
                    .to_owned(),
            )
        };
        let check = |what: &str, status: Status| match status {
            0 => Ok(()),
            NO_DEVICE => Err(no_card()),
            other => Err(EngineError::Driver(format!(
                "it is installed but {what} failed with CUDA error {other}; is it newer than the kernel module? restart the machine, install it again, or use `device=cpu`"
            ))),
        };
        let (mut version, mut count) = (0, 0);
        // SAFETY: as the function's contract says, here and below.
        unsafe {
            check("cuInit", (self.init)(0))?;
            check("cuDriverGetVersion", (self.version)(&mut version))?;
            check("cuDeviceGetCount", (self.count)(&mut count))?;
        }
        let mut cards = Vec::new();
        for number in 0..count {
            let (mut device, mut memory, mut capability) = (0, 0usize, [0; 2]);
            let mut name = [0 as c_char; 256];
            // SAFETY: every pointer is to a local place of the right type; the name's place has the length that is
            // given.
            unsafe {
                check("cuDeviceGet", (self.device)(&mut device, number))?;
                check("cuDeviceGetName", (self.name)(name.as_mut_ptr(), 255, device))?;
                check("cuDeviceTotalMem", (self.memory)(&mut memory, device))?;
                for (value, which) in capability.iter_mut().zip(CAPABILITY) {
                    check("cuDeviceGetAttribute", (self.attribute)(value, which, device))?;
                }
            }
            // SAFETY: the driver ends the name with NUL, and the last byte was never given to it.
            let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
            cards.push(Card {
                number: number as u32,
                name,
                memory: memory as u64,
                capability: (capability[0], capability[1]),
            });
        }
        if cards.is_empty() {
            return Err(no_card());
        }
        Ok(Driver { version: (version / 1000, version % 1000 / 10), cards })
    }
}
