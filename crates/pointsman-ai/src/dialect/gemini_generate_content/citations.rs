//! Sources of an answer: `groundingMetadata`, and `citationMetadata` for what is quoted.
//!
//! Google counts bytes of a part's text, the conversation characters; [`super::offsets`] knows both.

use super::{count, field, fields, text_field};
use crate::{
    conversation::Citation,
    json::{string::JsonStr, tree::Node, write::Writer},
};

/// A source, and what of the answer refers to it.
#[derive(Debug)]
pub(super) struct Placed<'a> {
    /// Which part of the content, if that is said.
    pub(super) part: usize,
    /// Bytes of its text.
    pub(super) bytes: Option<(usize, usize)>,
    /// The source, without a span.
    pub(super) citation: Citation<'a>,
}

/// Shows the sources of a candidate to `sink`.
pub(super) fn read_citations<'a>(
    grounding: Option<Node<'_, 'a>>,
    quotes: Option<Node<'_, 'a>>,
    mut sink: impl FnMut(Placed<'a>),
) {
    if let Some(grounding) = grounding {
        read_grounding(grounding, &mut sink);
    }
    let Some(quotes) = quotes else {
        return;
    };
    // The Gemini API and Vertex AI call the same list by different names.
    let lists = fields(quotes, ["citationSources", "citations"], |_, _| {});
    for quote in lists.into_iter().flatten().flat_map(Node::items) {
        sink(Placed {
            part: 0,
            bytes: range(quote),
            citation: Citation {
                url: text_field(quote, "uri"),
                title: text_field(quote, "title"),
                ..Citation::default()
            },
        });
    }
}

fn read_grounding<'a>(node: Node<'_, 'a>, sink: &mut impl FnMut(Placed<'a>)) {
    let names = ["groundingChunks", "groundingSupports"];
    let [chunks, supports] = fields(node, names, |_, _| {});
    let chunks = chunks.into_iter().flat_map(Node::items);
    let chunks: Vec<Citation<'a>> = chunks.map(read_chunk).collect();
    let mut is_referred = vec![false; chunks.len()];
    for support in supports.into_iter().flat_map(Node::items) {
        let [segment, indices] = fields(support, ["segment", "groundingChunkIndices"], |_, _| {});
        let part = segment.and_then(|segment| field(segment, "partIndex"));
        let part = part.and_then(whole).unwrap_or_default();
        for index in indices.into_iter().flat_map(Node::items).filter_map(whole) {
            let Some(citation) = chunks.get(index) else {
                continue;
            };
            is_referred[index] = true;
            sink(Placed {
                part,
                bytes: segment.and_then(range),
                citation: citation.clone(),
            });
        }
    }
    let left = chunks.into_iter().zip(is_referred);
    for (citation, _) in left.filter(|(_, is_referred)| !is_referred) {
        sink(Placed {
            part: 0,
            bytes: None,
            citation,
        });
    }
}

/// A chunk: of the web, of a store of documents, of a map.
fn read_chunk<'a>(chunk: Node<'_, 'a>) -> Citation<'a> {
    let source = chunk.members().find(|(_, source)| source.is_object());
    let Some((_, source)) = source else {
        return Citation::default();
    };
    Citation {
        url: text_field(source, "uri"),
        title: text_field(source, "title"),
        quote: text_field(source, "text"),
        ..Citation::default()
    }
}

/// Where a segment begins, and where it ends.
fn range(segment: Node<'_, '_>) -> Option<(usize, usize)> {
    let [start, end] = fields(segment, ["startIndex", "endIndex"], |_, _| {});
    // 0 is left out in proto3 JSON.
    Some((start.map_or(Some(0), whole)?, whole(end?)?))
}

fn whole(node: Node<'_, '_>) -> Option<usize> {
    usize::try_from(count(node).ok()?).ok()
}

/// A source on its way to a client.
#[derive(Debug)]
pub(super) struct Source<'c, 'a> {
    /// The source.
    pub(super) citation: &'c Citation<'a>,
    /// Which part of the content refers to it.
    pub(super) part: usize,
    /// Bytes of its text, and what stands there.
    pub(super) segment: Option<(usize, usize, &'c str)>,
}

/// A `groundingMetadata` of `sources`.
pub(super) fn write_grounding(sources: &[Source<'_, '_>], w: &mut Writer<'_>) {
    w.key("groundingMetadata").object(|w| {
        w.key("groundingChunks").array(|w| {
            sources
                .iter()
                .for_each(|source| write_chunk(source.citation, w));
        });
        w.key("groundingSupports").array(|w| {
            for (index, source) in sources.iter().enumerate() {
                if source.segment.is_some() || source.part > 0 {
                    write_support(index, source, w);
                }
            }
        });
    });
}

fn write_chunk(citation: &Citation<'_>, w: &mut Writer<'_>) {
    let kind = match citation.quote {
        Some(_) => "retrievedContext",
        None => "web",
    };
    w.object(|w| {
        w.key(kind).object(|w| {
            let member = |name: &'static str, text: &Option<JsonStr<'_>>, w: &mut Writer<'_>| {
                if let Some(text) = text {
                    w.key(name).str(text);
                }
            };
            member("uri", &citation.url, w);
            member("title", &citation.title, w);
            member("text", &citation.quote, w);
        });
    });
}

fn write_support(index: usize, source: &Source<'_, '_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("segment").object(|w| {
            if source.part > 0 {
                w.key("partIndex").u64(source.part as u64);
            }
            if let Some((start, end, text)) = source.segment {
                w.key("startIndex").u64(start as u64);
                w.key("endIndex").u64(end as u64);
                w.key("text").text(text);
            }
        });
        w.key("groundingChunkIndices")
            .array(|w| w.u64(index as u64));
    });
}
