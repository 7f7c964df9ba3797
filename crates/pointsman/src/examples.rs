//! The vectors of examples, for balancing by meaning: how they are made.

use std::time::Instant;

use pointsman_gateway::{
    config::snapshot::Snapshot,
    semantic::keeper::{Batch, Keeper, Outcome},
};

use crate::{errands, http_client::HttpClient};

impl errands::Keeper for Keeper {
    type Errand = Batch;
    type Outcome = Outcome;

    fn adopt(&mut self, snapshot: &Snapshot, now: Instant) {
        self.adopt(snapshot, now);
    }

    fn poll(&mut self, now: Instant) -> Option<Batch> {
        self.poll_batch(now)
    }

    async fn perform(batch: &Batch, client: &HttpClient) -> Outcome {
        batch.perform(client).await
    }

    fn on_outcome(&mut self, batch: &Batch, outcome: Outcome, now: Instant) {
        self.on_outcome(batch, outcome, now);
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.next_deadline(now)
    }
}
