// Starts what the page of task=onboard does by itself.
watchCut();
