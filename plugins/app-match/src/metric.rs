//! How often a text finds its pair among those of its batch.

use std::ffi::CStr;

use easytransfer_plugin::{Map, Metric, NoOptions, Result, Stream};
use serde_json::{Map as Json, Value, json};

/// "recall@1": the share of texts whose own pair has the highest cosine among the pairs of the batch; "mrr": the mean
/// of the inverse rank of the own pair. Both depend on the size of the batches, so they compare runs of one setting;
/// search over a whole collection is another thing.
pub struct InBatchRecall {
    first: u64,
    inverse_ranks: f64,
    count: u64,
}

impl Metric for InBatchRecall {
    const NAME: &'static CStr = c"in-batch-recall";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self { first: 0, inverse_ranks: 0.0, count: 0 })
    }

    fn update(&mut self, outputs: &Map, _: &Map) -> Result<()> {
        let pairs = outputs.get("pair_vectors")?;
        let scores = outputs.get("vectors")?.matmul(&pairs.transpose()?)?;
        let rows = scores.extent(0)?;
        let scores = scores.to_vec::<f32>()?;
        for (own, row) in scores.chunks_exact(rows).enumerate() {
            let better = row.iter().filter(|&&score| score > row[own]).count();
            self.first += u64::from(better == 0);
            self.inverse_ranks += 1.0 / (better + 1) as f64;
            self.count += 1;
        }
        Ok(())
    }

    fn compute(&self) -> Result<Json<String, Value>> {
        let count = self.count as f64;
        Ok(Json::from_iter([
            ("recall@1".to_owned(), json!(self.first as f64 / count)),
            ("mrr".to_owned(), json!(self.inverse_ranks / count)),
        ]))
    }

    fn save(&self, stream: &mut Stream) -> Result<()> {
        stream.write_u64(self.first)?;
        stream.write_u64(self.inverse_ranks.to_bits())?;
        stream.write_u64(self.count)
    }

    fn merge(&mut self, stream: &mut Stream) -> Result<()> {
        self.first += stream.read_u64()?;
        self.inverse_ranks += f64::from_bits(stream.read_u64()?);
        self.count += stream.read_u64()?;
        Ok(())
    }
}
