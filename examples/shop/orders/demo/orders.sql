WITH placed AS (
    INSERT INTO orders (customer, status, currency, total_cents, placed_at) VALUES
        ('Customer 1', 'placed',   'EUR', 7400, now() - interval '3 days'),
        ('Customer 2', 'refunded', 'EUR', 8900, now() - interval '2 days'),
        ('Customer 3', 'placed',   'EUR', 1490, now() - interval '5 hours')
    RETURNING id, customer
)
INSERT INTO order_lines (order_id, sku, name, quantity, price_cents)
SELECT placed.id, line.sku, line.name, line.quantity, line.price_cents
FROM placed
JOIN (VALUES
    ('Customer 1', 'desk-lamp',      'Desk lamp',      1, 4900),
    ('Customer 1', 'field-notebook', 'Field notebook', 2, 1250),
    ('Customer 2', 'wool-blanket',   'Wool blanket',   1, 8900),
    ('Customer 3', 'enamel-mug',     'Enamel mug',     1, 1490)
) AS line (customer, sku, name, quantity, price_cents) USING (customer);
