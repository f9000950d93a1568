//! Without an HTTP client there is nothing to see in a call's result.

use crate::attempt::{Attempt, Transport};
use crate::scheduler::Answered;

pub(crate) async fn read<T, E>(result: Result<T, E>, _: &Attempt) -> (Result<T, E>, Option<Transport>) {
    (result, None)
}

pub(crate) fn settle<T>(answered: Answered<T>) -> T {
    answered.permit.answered(answered.facts.usage, &answered.facts.answer);
    answered.value
}
