//! What is particular about a provider: credentials, places, paths, embeddings.

mod support;
mod providers {
    mod bedrock;
    mod embeddings;
    mod gcp;
    pub(crate) mod google;
    mod hosts;
    mod requests;
    mod vertex;
}
