"""Pictures with boxes and masks of objects, from COCO's files to batches."""
