"""What a validation found, image by image: tables, pictures and a page that shows them."""
