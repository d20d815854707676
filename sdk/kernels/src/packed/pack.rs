//! Weights in panels.

use super::lines::{Line, WeightLines};
use super::quantize::{bf16_bits, weight_row_int8};
use super::{LayerPrecision, PANEL};
use crate::{KernelError, Result, check_len, for_each_task};

/// Most inputs of an int8 weight: a sum of that many products of 8 bits still fits 31 bits.
const INT8_INPUTS: usize = 1 << 16;

/// A weight [outputs, inputs] in the form that [`super::linear_packed`] reads.
pub struct PackedWeight {
    precision: LayerPrecision,
    inputs: usize,
    outputs: usize,
    lines: WeightLines,
    /// int8: the scale of each output, padded to whole panels.
    scales: Vec<f32>,
    /// int8: the sum of each output's quantised weights, padded to whole panels.
    sums: Vec<i32>,
}

impl std::fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (precision, shape) = (self.precision.name(), [self.outputs, self.inputs]);
        f.debug_struct("PackedWeight")
            .field("precision", &precision)
            .field("shape", &shape)
            .finish()
    }
}

impl PackedWeight {
    /// Packs a row-major weight [outputs, inputs].
    ///
    /// # Errors
    /// If the slice does not fit, or if an int8 weight has more than 65,536 inputs or a value that is not finite.
    pub fn new(
        precision: LayerPrecision,
        weight: &[f32],
        outputs: usize,
        inputs: usize,
    ) -> Result<Self> {
        const NAME: &str = "packed weight";
        check_len(NAME, "weight", outputs * inputs, weight.len())?;
        let groups = inputs.div_ceil(precision.group());
        let panels = outputs.div_ceil(PANEL);
        let mut lines = WeightLines::zeros(panels * groups * (PANEL / 16));
        let padded = if precision == LayerPrecision::Int8 { panels * PANEL } else { 0 };
        let (mut scales, mut sums) = (vec![0.0; padded], vec![0; padded]);
        if precision == LayerPrecision::Int8 {
            let refuse = |expected, found| {
                Err(KernelError::Value { kernel: NAME, argument: "weight", expected, found })
            };
            if inputs > INT8_INPUTS {
                return refuse("of at most 65536 inputs for int8", inputs as f64);
            }
            if let Some(bad) = weight.iter().find(|value| !value.is_finite()) {
                return refuse("finite for int8", f64::from(*bad));
            }
        }
        // A panel is a task: a program waits for all of its weights before its first answer.
        let len = groups * (PANEL / 16);
        let corrections = scales.chunks_mut(PANEL).zip(sums.chunks_mut(PANEL)).map(Some);
        let tasks: Vec<_> = lines
            .chunks_mut(len.max(1))
            .enumerate()
            .zip(corrections.chain(std::iter::repeat_with(|| None)))
            .collect();
        for_each_task(tasks, |((panel, lines), mut corrections)| {
            let mut row = vec![0u32; groups];
            let rows = weight[panel * PANEL * inputs..].chunks(inputs.max(1)).take(PANEL);
            for (column, values) in rows.enumerate() {
                match precision {
                    LayerPrecision::F32 => {
                        row.iter_mut().zip(values).for_each(|(g, v)| *g = v.to_bits());
                    }
                    LayerPrecision::Bf16 => {
                        for (group, pair) in row.iter_mut().zip(values.chunks(2)) {
                            let high = pair.get(1).map_or(0, |v| u32::from(bf16_bits(*v)));
                            *group = u32::from(bf16_bits(pair[0])) | high << 16;
                        }
                    }
                    LayerPrecision::Int8 => {
                        let found = weight_row_int8(values, &mut row);
                        if let Some((scales, sums)) = &mut corrections {
                            (scales[column], sums[column]) = found;
                        }
                    }
                }
                for (group, value) in row.iter().enumerate() {
                    lines[column / 16 + group * (PANEL / 16)].0[column % 16] = *value;
                }
            }
        });
        Ok(Self { precision, inputs, outputs, lines, scales, sums })
    }

    /// What it is packed for.
    pub fn precision(&self) -> LayerPrecision {
        self.precision
    }

    /// Columns of the weight.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Rows of the weight.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes of memory.
    pub fn size(&self) -> usize {
        self.lines.len() * size_of::<Line>() + 4 * (self.scales.len() + self.sums.len())
    }

    pub(super) fn groups(&self) -> usize {
        self.inputs.div_ceil(self.precision.group())
    }

    /// The groups of a panel: [groups, 48].
    pub(super) fn panel(&self, panel: usize) -> &[Line] {
        let len = self.groups() * (PANEL / 16);
        &self.lines[panel * len..][..len]
    }

    /// Scales and sums of a panel's 48 outputs.
    pub(super) fn corrections(&self, panel: usize) -> (&[f32], &[i32]) {
        let part = panel * PANEL..(panel + 1) * PANEL;
        (&self.scales[part.clone()], &self.sums[part])
    }
}
