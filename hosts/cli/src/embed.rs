//! `easytransfer embed`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use easytransfer::{EmbedOptions, Result};

use crate::arguments::{Common, Computing, Reading};
use crate::print;

/// Turn texts into vectors
#[derive(Args)]
pub struct Embed {
    /// Directory of the encoder or of a bundle
    #[arg(long, value_name = "DIR")]
    encoder: PathBuf,
    /// Texts: one per line, TSV, CSV or JSON (one object per line, or an array); `-` is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    data: PathBuf,
    /// Where vectors go: FILE.npy (float32, [texts, width]), or JSON Lines by another name or for `-`
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// How the vectors of a text's tokens become one [default: what the encoder's files say, else mean]
    #[arg(long, value_enum)]
    pooling: Option<Pooling>,
    /// Leave vectors as long as they are instead of scaling them to length 1
    #[arg(long)]
    no_normalize: bool,
    /// Most tokens of a text [default: what the encoder's files say]
    #[arg(long, value_name = "N")]
    max_length: Option<u64>,
    /// What precedes every text [default: what the encoder's files say, else nothing]
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_name")]
    prompt: Option<String>,
    /// Name of the prompt among those of the encoder's files
    #[arg(long, value_name = "NAME")]
    prompt_name: Option<String>,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    computing: Computing,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Pooling {
    Mean,
    Cls,
    Max,
    MeanSqrtLenTokens,
    #[value(name = "weightedmean")]
    WeightedMean,
    #[value(name = "lasttoken")]
    LastToken,
    Pooled,
}

impl Embed {
    pub fn run(self, common: &Common) -> Result<()> {
        let data = self.reading.file(&self.data, None)?;
        let pooling = self.pooling.as_ref().and_then(ValueEnum::to_possible_value);
        let options = EmbedOptions {
            pooling: pooling.map(|value| value.get_name().to_owned()),
            prompt: self.prompt,
            prompt_name: self.prompt_name,
            normalize: self.no_normalize.then_some(false),
            max_length: self.max_length,
            precision: self.computing.precision(),
        };
        let runtime = common.runtime(&[&self.data, &self.output])?;
        let embedder = runtime.embedder(&self.encoder, options)?;
        let rows = embedder.embed_file(&data, &self.output)?;
        if !print::is_standard_output(&self.output) {
            let (width, output) = (embedder.width(), self.output.display());
            print::text(&format!("{rows} vectors of {width} numbers: {output}\n"))?;
        }
        Ok(())
    }
}
