//! Counts of test results over all stages.

/// How many tests passed, failed and did not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests and stages that did not run.
    pub skipped: usize,
}

impl Tally {
    /// Adds one line of a test program's output: `test result: ok. 3 passed; 0 failed; 1 ignored; ...`. Others count
    /// nothing.
    pub fn add_line(&mut self, line: &str) {
        // A test that prints without a line break puts its text before ours.
        let Some((_, results)) = line.split_once("test result: ") else {
            return;
        };
        for part in results.split([';', '.']) {
            let Some((count, word)) = part.trim().split_once(' ') else {
                continue;
            };
            let Ok(count) = count.parse::<usize>() else {
                continue;
            };
            match word {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => {}
            }
        }
    }

    /// Adds one test.
    pub fn add(&mut self, has_passed: bool) {
        if has_passed {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }

    /// The last line of a run.
    pub fn line(&self) -> String {
        let Self { passed, failed, skipped } = self;
        match skipped {
            0 => format!("{passed} passed, {failed} failed"),
            _ => format!("{passed} passed, {failed} failed, {skipped} skipped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn tally_sums_result_lines_and_ignores_others() {
        let mut tally = Tally::default();
        tally.add_line("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.2s");
        tally.add_line(
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
        );
        tally.add_line("running 9 tests");
        tally.add_line("9 passed; 9 failed");
        assert_eq!(tally, Tally { passed: 5, failed: 1, skipped: 1 });
        assert_eq!(tally.line(), "5 passed, 1 failed, 1 skipped");
    }
}
