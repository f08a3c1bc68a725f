//! What a commit promises, seen from outside.

mod support;

mod publish;
