//! Consistent hashing (Dynamo §4.2–4.3): slots, vnodes, the planner and the topology document (pure).
