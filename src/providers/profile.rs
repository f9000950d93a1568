//! How each provider enforces its limits.

use super::Provider;
use crate::cost::{DAY, Dimension, Limit, MINUTE, SECOND, Shape, Zone};

/// The shape that `provider`'s own pages or its printed waits give to `limit`; `None` where that has to be found out.
///
/// | provider | minute | day |
/// |---|---|---|
/// | OpenAI, Anthropic, Groq | refill | refill |
/// | Azure | requests in slices of 10 s, tokens in fixed minutes | fixed |
/// | Gemini | sliding (it does not say; safe for all that it may be) | calendar, midnight Pacific |
/// | Mistral | sliding | sliding |
/// | compatible | found out | found out |
pub fn shape_of(provider: Provider, limit: &Limit) -> Option<Shape> {
    match provider {
        Provider::Openai | Provider::Anthropic | Provider::Groq => Some(Shape::Refill),
        Provider::Azure
            if limit.dimension == Dimension::Requests && limit.window > SECOND && limit.window <= MINUTE =>
        {
            Some(Shape::Slice(SECOND * 10))
        }
        Provider::Azure => Some(Shape::Fixed),
        Provider::Gemini if limit.window == DAY => Some(Shape::Calendar(Zone::Pacific)),
        Provider::Gemini | Provider::Mistral => Some(Shape::Sliding),
        Provider::Compatible => None,
    }
}
