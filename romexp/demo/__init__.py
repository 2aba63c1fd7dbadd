"""`romexp demo`: a page in the browser on which a visitor tells a model one fact and sees what changed."""
