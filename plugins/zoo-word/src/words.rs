//! The table of word vectors.

use super::options::{WordOptions, check_sizes};
use super::vectors;
use easytransfer_plugin::{DType, Embedding, Error, Init, LogLevel, Result, Scope, Tensor, log};

/// Vectors of words by id.
pub struct Words {
    table: Embedding,
    rows: usize,
    width: usize,
}

impl Words {
    /// Declares the table in `scope`, by the name that heads of language models know, and fills it from the file that
    /// the options name. Errors: the file's; none of the words is in it.
    pub fn new(options: &WordOptions, scope: &Scope) -> Result<Self> {
        let (rows, width) = (options.vocab_size, options.embedding_size);
        check_sizes(&[("vocab_size", rows), ("embedding_size", width)])?;
        let scope = scope.child("embeddings.word_embeddings")?;
        // Words that the file lacks begin near zero, where they disturb the others least.
        let deviation = if options.word_vectors.is_some() { 0.01 } else { 0.02 };
        let table = Embedding::new(&scope, rows, width, Init::Normal(0.0, deviation))?;
        let words = Self { table, rows, width };
        if let Some(path) = &options.word_vectors {
            words.fill(path, &options.words)?;
        }
        if options.freeze_words {
            words.table.weight.set_trainable(false)?;
        }
        Ok(words)
    }

    fn fill(&self, path: &str, words: &[String]) -> Result<()> {
        if words.len() != self.rows {
            return Err(Error::invalid(format!(
                "word_vectors: expected the {} words of the vocabulary from the host, found {}",
                self.rows,
                words.len()
            )));
        }
        let found = vectors::read(path, words, self.width)?;
        let report = format!(
            "word_vectors: `{path}` has {} of the {} words of the vocabulary ({:.1} %), {} of them only in other case",
            found.vectors.len(),
            self.rows,
            100.0 * found.vectors.len() as f64 / self.rows as f64,
            found.other_case,
        );
        if found.vectors.is_empty() {
            return Err(Error::bad_input(format!(
                "{report}; is it of the language of the training data, and cut into words as they are?"
            )));
        }
        let begun = self.table.weight.tensor()?.detach()?;
        let mut values = begun.cast(DType::F32)?.to_vec::<f32>()?;
        for (row, vector) in found.vectors {
            values[row * self.width..][..self.width].copy_from_slice(&vector);
        }
        let values = Tensor::from_slice(&values, &[self.rows, self.width])?;
        self.table.weight.assign(&values.cast(begun.dtype())?)?;
        log(LogLevel::Info, "zoo-word", &report);
        Ok(())
    }

    /// ids [T] -> [T, embedding_size].
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        self.table.forward(ids)
    }
}
