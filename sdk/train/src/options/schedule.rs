//! Learning-rate schedules: a factor for the peak rate at each step, the same as `transformers`'
//! `get_*_schedule_with_warmup`. With step s (counted from 0, the number of optimizer steps made), W warm-up steps
//! and T steps in all, every schedule rises as s / max(1, W) for s < W; after that
//!
//! | name | factor |
//! |---|---|
//! | constant | 1 |
//! | linear | max(0, (T - s) / max(1, T - W)) |
//! | polynomial | (1 - end) · (1 - (s - W) / (T - W))^power + end, and end for s > T |
//! | cosine | max(0, (1 + cos(2π · cycles · (s - W) / max(1, T - W))) / 2) |

use crate::error::{OptionError, Result};
use crate::nearest::nearest;

const NAMES: [&str; 4] = ["constant", "linear", "polynomial", "cosine"];

/// The shape of a schedule after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decay {
    /// No decay.
    Constant,
    /// A straight line to 0.
    Linear,
    /// A power of the part that is left.
    Polynomial {
        /// The exponent; 1 is a straight line.
        power: f64,
        /// The factor at the end (`transformers` gives the rate, 1e-7 by default, instead).
        end: f64,
    },
    /// Half a cosine wave, or more.
    Cosine {
        /// How many waves; 0.5 falls from 1 to 0 once.
        cycles: f64,
    },
}

/// How long the rate rises from 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Warmup {
    /// So many steps.
    Steps(u64),
    /// This part of all steps, rounded up; from 0 to 1.
    Ratio(f64),
}

/// A warm-up followed by a decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The shape after the warm-up.
    pub decay: Decay,
    /// The warm-up.
    pub warmup: Warmup,
}

impl Schedule {
    /// The schedule `name` (constant, linear, polynomial, cosine) with the usual shape: power 1, end 0, half a wave.
    /// Errors: an unknown name.
    pub fn named(name: &str, warmup: Warmup) -> Result<Schedule> {
        let decay = match name {
            "constant" => Decay::Constant,
            "linear" => Decay::Linear,
            "polynomial" => Decay::Polynomial { power: 1.0, end: 0.0 },
            "cosine" => Decay::Cosine { cycles: 0.5 },
            other => {
                return Err(OptionError {
                    key: "schedule".to_string(),
                    expected: "constant, linear, polynomial or cosine".to_string(),
                    found: format!("`{other}`"),
                    nearest: nearest(other, NAMES).map(str::to_string),
                    ..OptionError::default()
                }
                .into());
            }
        };
        Ok(Schedule { decay, warmup })
    }

    /// How many of `total` steps are warm-up.
    pub fn warmup_steps(&self, total: u64) -> u64 {
        match self.warmup {
            Warmup::Steps(steps) => steps,
            // Casting saturates, so a senseless ratio cannot do harm.
            Warmup::Ratio(ratio) => (total as f64 * ratio).ceil() as u64,
        }
    }

    /// Whether the rate is 0 in all of `total` steps: a warm-up begins at 0, and a run may end there.
    pub fn trains_nothing(&self, total: u64) -> bool {
        // No schedule is 0 for longer than its first step and yet rises later.
        (0..total.min(2)).all(|step| self.factor(step, total) == 0.0)
    }

    /// The factor for the rate of step `step` (counted from 0) out of `total`.
    pub fn factor(&self, step: u64, total: u64) -> f64 {
        let warmup = self.warmup_steps(total);
        if step < warmup {
            return step as f64 / warmup.max(1) as f64;
        }
        let span = total.saturating_sub(warmup).max(1) as f64;
        let progress = (step - warmup) as f64 / span;
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear => (total.saturating_sub(step) as f64 / span).max(0.0),
            Decay::Polynomial { end, .. } if step > total => end,
            Decay::Polynomial { power, end } => {
                (1.0 - end) * (1.0 - progress).max(0.0).powf(power) + end
            }
            Decay::Cosine { cycles } => {
                (0.5 * (1.0 + (std::f64::consts::TAU * cycles * progress).cos())).max(0.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The factors at steps 0, 5, 10 (the end of the warm-up), 60 (the middle), 110 (the end) and 120, of 110 steps.
    fn factors(decay: Decay) -> [f64; 6] {
        let schedule = Schedule { decay, warmup: Warmup::Steps(10) };
        [0, 5, 10, 60, 110, 120].map(|step| schedule.factor(step, 110))
    }

    fn assert_near(found: [f64; 6], expected: [f64; 6]) {
        for (found_one, expected_one) in found.iter().zip(expected) {
            assert!((found_one - expected_one).abs() < 1e-12, "{found:?} is not {expected:?}");
        }
    }

    #[test]
    fn factors_equal_hand_computed_values() {
        assert_near(factors(Decay::Constant), [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]);
        assert_near(factors(Decay::Linear), [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]);
        assert_near(
            factors(Decay::Polynomial { power: 2.0, end: 0.2 }),
            // At the middle 0.8 · 0.5² + 0.2.
            [0.0, 0.5, 1.0, 0.4, 0.2, 0.2],
        );
        // Ten steps behind the end the wave has turned: (1 + cos 1.1π) / 2.
        let behind = 0.5 * (1.0 + (1.1 * std::f64::consts::PI).cos());
        assert_near(factors(Decay::Cosine { cycles: 0.5 }), [0.0, 0.5, 1.0, 0.5, 0.0, behind]);
        let quarter = Schedule { decay: Decay::Cosine { cycles: 0.5 }, warmup: Warmup::Steps(0) };
        assert!((quarter.factor(25, 100) - 0.853_553_390_593_273_7).abs() < 1e-12);
    }

    #[test]
    fn warmup_ratio_rounds_up_and_no_warmup_starts_at_one() {
        let linear = |warmup| Schedule { decay: Decay::Linear, warmup };
        assert_eq!(linear(Warmup::Ratio(0.06)).warmup_steps(110), 7);
        assert_eq!(linear(Warmup::Steps(0)).factor(0, 10), 1.0);
        assert_eq!(linear(Warmup::Steps(10)).factor(10, 10), 0.0);
    }

    #[test]
    fn a_run_that_ends_with_its_first_step_of_warmup_trains_nothing() {
        let linear = |warmup| Schedule { decay: Decay::Linear, warmup };
        assert!(linear(Warmup::Ratio(0.1)).trains_nothing(1));
        assert!(linear(Warmup::Steps(1)).trains_nothing(1));
        assert!(!linear(Warmup::Steps(0)).trains_nothing(1));
        assert!(!linear(Warmup::Ratio(0.1)).trains_nothing(2));
        assert!(!linear(Warmup::Steps(1000)).trains_nothing(2));
    }

    #[test]
    fn unknown_name_suggests_the_nearest() {
        let message = Schedule::named("cosin", Warmup::Steps(0)).unwrap_err().to_string();
        assert!(message.contains("did you mean `cosine`?"), "{message}");
    }
}
