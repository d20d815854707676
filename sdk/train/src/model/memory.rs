//! Whether a model can be made at all. Random weights are made one by one when they are first wanted, and an
//! allocator that runs out of memory ends the program, so what cannot fit is refused while it is only names and
//! shapes.

use std::path::Path;

use easytransfer_plugin::{Param, Params};

use crate::error::{Error, Result};

/// Bytes of a parameter and of its gradient.
const BYTES: u128 = 8;

/// Errors: the parameters with their gradients need more memory than this process may have. `origin` is the file that
/// describes them.
pub(super) fn check(params: &Params, origin: &Path) -> Result<()> {
    check_against(params, origin, available())
}

fn check_against(params: &Params, origin: &Path, available: Option<u64>) -> Result<()> {
    let size = |param: &Param| -> u128 {
        param.shape().iter().fold(BYTES, |size, &extent| size.saturating_mul(extent as u128))
    };
    let needed = params.iter().fold(0u128, |sum, param| sum.saturating_add(size(&param)));
    let Some(available) = available.filter(|&available| needed > u128::from(available)) else {
        return Ok(());
    };
    let largest = params.iter().max_by_key(size);
    let largest = largest.map(|param| format!("{} {:?}", param.name(), param.shape()));
    Err(Error::Config {
        origin: origin.display().to_string(),
        message: format!(
            "expected a model that fits into the memory of {} MB, found {} parameters that need {} MB with their gradients; the largest \
             is {}",
            available >> 20,
            params.len(),
            needed >> 20,
            largest.unwrap_or_default()
        ),
    })
}

/// Bytes of memory that this process may have, where the operating system says it: those of the machine, of its
/// control group or of its own limit, whichever is least.
fn available() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let machine = kilobytes(&read("/proc/meminfo"), "MemTotal:");
    let group = read("/sys/fs/cgroup/memory.max").trim().parse().ok();
    let own = address_space(&read("/proc/self/limits"));
    [machine, group, own].into_iter().flatten().min()
}

/// The bytes of a line "NAME 12 kB".
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The soft limit of a line "Max address space SOFT HARD bytes".
fn address_space(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{address_space, kilobytes};

    #[test]
    fn limits_are_read_from_what_linux_writes() {
        let text = "MemTotal:       32864804 kB\nMemFree:        1 kB\n";
        assert_eq!(kilobytes(text, "MemTotal:"), Some(32_864_804 * 1024));
        assert_eq!(kilobytes("", "MemTotal:"), None);
        let text = "Max open files            1024                 4096                 files\n\
                    Max address space         8192000000           unlimited            bytes\n";
        assert_eq!(address_space(text), Some(8_192_000_000));
        assert_eq!(address_space(&text.replace("8192000000", "unlimited")), None);
    }
}
