//! Writing to etcd: one transaction, made only if what it goes by still holds.

use serde_json::{Value, json};

use pointsman_gateway::{
    admin_api::store::{Change, Expect, Put, StoreError},
    clock,
};

use super::{
    Shared,
    client::Fault,
    wire::{self, Lease, Transaction},
};

impl Shared {
    /// Makes `change`. It is acknowledged once etcd has done so; that the mirror shows it, too, is waited for.
    pub(super) async fn commit(&self, change: Change) -> Result<(), StoreError> {
        let mut leases = Vec::new();
        let done = self
            .while_reached(self.transact(&change, &mut leases))
            .await;
        // Of a change of which nothing is known the lease may hold the value that was written.
        if matches!(done, Ok(None)) {
            for lease in &leases {
                // It ends by itself if this fails.
                let ask = json!({ "ID": lease });
                let _ = self.client.call::<Value>("/v3/lease/revoke", &ask).await;
            }
        }
        let revision = done?.ok_or(StoreError::Overtaken)?;
        // It is done, whatever becomes of this.
        let _ = self.while_reached(self.shows(revision)).await;
        Ok(())
    }

    /// The revision that made `change`; `None` if what it goes by holds no longer.
    async fn transact(
        &self,
        change: &Change,
        leases: &mut Vec<String>,
    ) -> Result<Option<u64>, Fault> {
        let mut operations = self.removals(&change.delete);
        for put in &change.put {
            let lease = self.lease(put).await?;
            let text = self.at_rest.sealed(&put.key, &put.text);
            let mut request =
                json!({ "key": self.key(&put.key), "value": wire::text(text.as_bytes()) });
            if let Some(lease) = lease {
                request["lease"] = json!(lease);
                leases.push(lease);
            }
            operations.push(json!({ "request_put": request }));
        }
        let mut compare: Vec<Value> = change
            .expect
            .iter()
            .map(|(key, expect)| match expect {
                Expect::Absent => json!({
                    "key": self.key(key), "target": "CREATE", "result": "EQUAL",
                    "create_revision": "0",
                }),
                Expect::Modified(revision) => json!({
                    "key": self.key(key), "target": "MOD", "result": "EQUAL",
                    "mod_revision": revision.to_string(),
                }),
            })
            .collect();
        compare.extend(change.quiet.iter().map(|(prefix, since)| {
            let end = wire::end_of(&format!("{}{prefix}", self.prefix));
            json!({
                "key": self.key(prefix), "range_end": wire::text(&end),
                "target": "MOD", "result": "LESS", "mod_revision": (since + 1).to_string(),
            })
        }));
        let ask = json!({ "compare": compare, "success": operations });
        let answer: Transaction = self.client.call("/v3/kv/txn", &ask).await.map_err(unsure)?;
        Ok(answer.succeeded.then_some(answer.header.revision))
    }

    /// What removes `keys`: a consumer with everything below it, also what others add meanwhile.
    fn removals(&self, keys: &[String]) -> Vec<Value> {
        let mut removals = Vec::new();
        for key in keys {
            let is_below_another = keys.iter().any(|other| {
                let rest = key.strip_prefix(other.as_str());
                rest.is_some_and(|rest| rest.starts_with('/'))
            });
            if is_below_another {
                continue;
            }
            removals.push(json!({ "request_delete_range": { "key": self.key(key) } }));
            if key.starts_with("/consumers/") {
                let below = format!("{key}/");
                let end = wire::end_of(&format!("{}{below}", self.prefix));
                removals.push(json!({ "request_delete_range": {
                    "key": self.key(&below), "range_end": wire::text(&end),
                } }));
            }
        }
        removals
    }

    /// A lease that ends when `put` is to go away, if it is to.
    async fn lease(&self, put: &Put) -> Result<Option<String>, Fault> {
        let Some(at) = put.expires_ms else {
            return Ok(None);
        };
        let seconds = at
            .saturating_sub(clock::unix_millis())
            .div_ceil(1000)
            .max(1);
        let ask = json!({ "TTL": seconds.to_string() });
        let lease: Lease = self.client.call("/v3/lease/grant", &ask).await?;
        Ok(Some(lease.id))
    }

    /// `key` as etcd has it, in the JSON's Base64.
    fn key(&self, key: &str) -> String {
        wire::text(format!("{}{key}", self.prefix).as_bytes())
    }
}

/// Whoever asked for a change must know that nobody knows.
fn unsure(fault: Fault) -> Fault {
    match fault {
        Fault::Broken(what) => {
            Fault::Broken(format!("{what}; whether the change was made is not known"))
        }
        other => other,
    }
}
