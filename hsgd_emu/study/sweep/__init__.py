"""Many scenarios of one run: study files, their scenarios, their results."""
