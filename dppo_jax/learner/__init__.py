"""From a rollout to an update: batches, loss, the compiled train step."""
