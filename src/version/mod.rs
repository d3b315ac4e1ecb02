//! Causality (Dynamo §4.4): dots, version vectors and contexts (pure).
