//! The images of a batch, and how patches become vectors.

use super::config::ImageBertConfig;
use easytransfer_plugin::{
    Activation, Embedding, Error, Init, LayerNorm, Linear, LinearConfig, Map, Result, Rng, Scope,
    Tensor, nn,
};

/// The patches of a batch that are there.
pub struct Patches {
    /// Their numbers [P, f], as they came.
    pub values: Tensor,
    /// The place of each in its image [P] I64.
    pub places: Tensor,
    /// How many each image has.
    pub lens: Vec<usize>,
    /// Which of them are hidden, in order.
    pub hidden: Vec<i64>,
}

/// Reads "patches" [B, n f] or "pixels" [B, channels height width], "patch_mask" [B, n] (patches above 0.5 are there;
/// all where it is left out) and "masked_patches" [B, n] (those above 0.5 are hidden). Nothing without an image.
/// Errors: sizes that do not fit.
pub fn read(config: &ImageBertConfig, batch: &Map, rows: usize) -> Result<Option<Patches>> {
    let width = config.patch_feature_size;
    let wrong = |field: &str, expected: String, found: &[usize]| {
        Err(Error::bad_input(format!("{field}: expected {expected}, found {found:?}")))
    };
    let values = if let Some(pixels) = batch.find("pixels")? {
        let Some(size) = config.image_size else {
            let expected =
                "a model with image_size, which reads pixels; this one reads \"patches\"";
            return wrong("pixels", expected.to_owned(), pixels.shape());
        };
        let len = config.num_channels * size * size;
        if pixels.len() != rows * len {
            let expected = format!("[{rows}, {} * {size} * {size}]", config.num_channels);
            return wrong("pixels", expected, pixels.shape());
        }
        // [B, c, down, p, across, p] -> [B, down, across, c, p, p]: a patch's numbers as a convolution reads them.
        let (p, across) = (config.patch_size, size / config.patch_size);
        pixels
            .reshape(&[rows, config.num_channels, across, p, across, p])?
            .permute(&[0, 2, 4, 1, 3, 5])?
            .contiguous()?
            .reshape(&[rows * across * across, width])?
    } else if let Some(patches) = batch.find("patches")? {
        if rows == 0 || !patches.len().is_multiple_of(rows * width) {
            let expected = format!("[{rows}, n * {width}] (patch_feature_size)");
            return wrong("patches", expected, patches.shape());
        }
        patches.reshape(&[patches.len() / width, width])?
    } else {
        return Ok(None);
    };
    let count = values.extent(0)?.checked_div(rows).unwrap_or(0);
    if count > config.max_patch_position_embeddings {
        let most = config.max_patch_position_embeddings;
        let expected = format!("at most {most} patches (max_patch_position_embeddings)");
        return wrong("patches", expected, &[count]);
    }
    let flags = |field: &str, default: bool| -> Result<Vec<bool>> {
        let Some(flags) = batch.find(field)? else { return Ok(vec![default; rows * count]) };
        if flags.len() != rows * count {
            return Err(Error::bad_input(format!(
                "{field}: expected [{rows}, {count}], a number for each patch, found {:?}",
                flags.shape()
            )));
        }
        let flags = flags.cast(easytransfer_plugin::DType::F32)?.to_vec::<f32>()?;
        Ok(flags.into_iter().map(|flag| flag > 0.5).collect())
    };
    let (there, masked) = (flags("patch_mask", true)?, flags("masked_patches", false)?);
    let kept: Vec<usize> = (0..rows * count).filter(|at| there[*at]).collect();
    let hidden = kept.iter().enumerate().filter(|(_, at)| masked[**at]);
    let hidden = hidden.map(|(order, _)| order as i64).collect();
    let lens = there.chunks(count.max(1)).map(|row| row.iter().filter(|flag| **flag).count());
    let lens = if count == 0 { vec![0; rows] } else { lens.collect() };
    let index: Vec<i64> = kept.iter().map(|at| *at as i64).collect();
    let places: Vec<i64> = kept.iter().map(|at| (at % count) as i64).collect();
    let values = if kept.len() == rows * count {
        values
    } else {
        values.index_select(0, &Tensor::from_slice(&index, &[index.len()])?)?
    };
    Ok(Some(Patches {
        values,
        places: Tensor::from_slice(&places, &[places.len()])?,
        lens,
        hidden,
    }))
}

/// Vectors of patches: LayerNorm(project(patch) + type + position).
pub struct ImageEmbeddings {
    projector: Linear,
    positions: Embedding,
    types: Embedding,
    norm: LayerNorm,
    dropout: f64,
}

impl ImageEmbeddings {
    /// Declares its parameters in `scope`.
    pub fn new(config: &ImageBertConfig, scope: &Scope) -> Result<Self> {
        let (h, init) = (config.hidden_size, Init::TruncatedNormal(0.0, config.initializer_range));
        let projector =
            LinearConfig { bias: false, ..LinearConfig::new(config.patch_feature_size, h) };
        let table = |name: &str, rows: usize| Embedding::new(&scope.child(name)?, rows, h, init);
        Ok(Self {
            projector: projector.with_init(init).init(&scope.child("image_projector")?)?,
            positions: table("patch_position_embeddings", config.max_patch_position_embeddings)?,
            types: table("patch_type_embeddings", config.patch_type_vocab_size)?,
            norm: LayerNorm::new(&scope.child("LayerNorm")?, h, config.layer_norm_eps)?,
            dropout: config.hidden_dropout_prob,
        })
    }

    /// [P, h]. Hidden patches are zeros before the projection.
    pub fn forward(&self, patches: &Patches, rng: Option<&Rng>) -> Result<Tensor> {
        let count = patches.values.extent(0)?;
        let mut values = patches.values.cast(self.projector.weight.tensor()?.dtype())?;
        if !patches.hidden.is_empty() {
            let mut shown = vec![1.0f32; count];
            patches.hidden.iter().for_each(|at| shown[*at as usize] = 0.0);
            let shown = Tensor::from_slice(&shown, &[count, 1])?.cast(values.dtype())?;
            values = values.mul(&shown)?;
        }
        let values = nn::dropout(&values, self.dropout, rng)?;
        let projected = self.projector.forward(&values, Activation::None)?;
        // Text has the first type, in the original as here by its own table.
        let types = Tensor::from_slice(&vec![1i64; count], &[count])?;
        let tables = (self.positions.weight.tensor()?, self.types.weight.tensor()?);
        let places = nn::embedding_sum(&[(&tables.0, &patches.places), (&tables.1, &types)])?;
        let x = self.norm.forward(&projected, Some(&places), 0.0, None)?;
        nn::dropout(&x, self.dropout, rng)
    }
}
